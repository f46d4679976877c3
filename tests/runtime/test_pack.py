"""Proven files beside the checkpoint, or none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from flyweight.anatomy.gguf import LLAMA
from flyweight.errors import ParityError
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.pack import pack_checkpoint


@pytest.fixture
def checkpoint(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def test_a_file_that_disagrees_is_not_written(checkpoint: Path) -> None:
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    wrong = replace(LLAMA, interleaved={})
    with pytest.raises(ParityError, match="differ from transformers"):
        pack_checkpoint(checkpoint, [8], wrong)
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before


def test_the_report_lists_prompts_given(checkpoint: Path, prompts: list[list[int]]) -> None:
    report = pack_checkpoint(checkpoint, [16], LLAMA, prompts[:5], max_tokens=4)
    assert report.parity.prompts == 5
    assert report.files == {16: checkpoint / GGUF_NAMES[16]}
    assert report.written[16].bytes == report.files[16].stat().st_size
