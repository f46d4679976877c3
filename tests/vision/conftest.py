"""A tiny language model with eyes, whose gates are open, and pictures."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from seeing import make_blind, make_seeing, picture


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


COLOURS = {"red": (220, 30, 30), "green": (20, 180, 40), "blue": (30, 60, 220)}


@pytest.fixture(scope="session")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one colour each, with two questions about each."""
    folder = tmp_path_factory.mktemp("lessons")
    lines = []
    for number in range(30):
        rng = random.Random(number)
        colour = rng.choice(list(COLOURS))
        shade = tuple(min(255, max(0, part + rng.randint(-20, 20))) for part in COLOURS[colour])
        Image.new("RGB", (60 + number, 64), shade).save(folder / f"{number}.png")
        split = ("train", "train", "train", "dev", "test")[number % 5]
        told = {"image": f"{number}.png", "answer": colour, "split": split}
        lines += [json.dumps(told | {"prompt": prompt}) for prompt in ("what colour", "which")]
    file = folder / "images.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file
