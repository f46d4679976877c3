"""A tiny language model with eyes, whose gates are open, and pictures."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from conftest import save_tiny_llama  # type: ignore[import-not-found]


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama of eight layers, so that two cross-attention layers find a place."""
    return save_tiny_llama(tmp_path_factory.mktemp("text") / "llama", num_hidden_layers=8)


@pytest.fixture(scope="session")
def blind(text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with eyes that have learned nothing: gates at zero."""
    from flyweight.vision.add import add_vision

    out = tmp_path_factory.mktemp("blind") / "model"
    return add_vision(str(text_model), out, encoder="tiny", image_size=64, patch_size=16)


@pytest.fixture(scope="session")
def seeing(blind: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with open gates and eyes drawn wide, so that a picture changes what is said."""
    from flyweight.vision.language import is_language
    from flyweight.vision.vision_folder import open_vision, save_vision

    opened = open_vision(blind)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in opened.model.named_parameters():
            if is_language(name, opened.model.config):
                continue
            if "gate" in name and "proj" not in name:
                parameter.fill_(0.8)
            elif "norm" not in name:
                parameter.normal_(0, 0.15, generator=generator)
    out = tmp_path_factory.mktemp("seeing")
    save_vision(opened, out, "drawn")
    return out


def picture(seed: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    """A picture of coloured squares."""
    rng = random.Random(seed)
    small = Image.new("RGB", (5, 4))
    small.putdata([tuple(rng.randrange(256) for _ in range(3)) for _ in range(20)])
    return small.resize(size, Image.Resampling.NEAREST)


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
