"""A tiny language model with eyes, whose gates are open, and pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seeing import draw_lessons, make_blind, make_seeing, picture


@pytest.fixture(scope="session")
def text_model(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama of eight layers, so that two cross-attention layers find a place.

    Its embedding has no row to spare: the picture's token has a new one, which is learned.
    """
    folder = tmp_path_factory.mktemp("text") / "llama"
    return make_llama(folder, num_hidden_layers=8, vocab_size=300)


@pytest.fixture(scope="session")
def blind(text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with eyes that have learned nothing: gates at zero."""
    return make_blind(text_model, tmp_path_factory.mktemp("blind") / "model")


@pytest.fixture(scope="session")
def seeing(blind: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with open gates and eyes drawn wide, so that a picture changes what is said."""
    return make_seeing(blind, tmp_path_factory.mktemp("seeing") / "model")


@pytest.fixture(scope="session")
def draw() -> Any:
    """The function that draws a picture from a seed."""
    return picture


@pytest.fixture(scope="session")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one colour each, with two questions about each."""
    return draw_lessons(tmp_path_factory.mktemp("lessons"))
