"""The demo's model, packed once, and a service with it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from running import serving

import flyweight.demo
from flyweight.anatomy.gguf import LLAMA
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.gguf import write_gguf


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded teacher as a folder with a file of 8 bits."""
    folder = tmp_path_factory.mktemp("serve") / "demo"
    shutil.copytree(Path(flyweight.demo.__file__).parent / "teacher", folder)
    write_gguf(folder, folder / GGUF_NAMES[8], 8, LLAMA)
    return folder


@pytest.fixture(scope="session")
def address(demo_model: Path) -> Iterator[str]:
    """Where a service with the demo's model listens."""
    with serving(demo_model) as (address, _):
        yield address
