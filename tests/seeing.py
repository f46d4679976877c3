"""A tiny language model with eyes whose gates are open, and pictures for it."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from PIL import Image


def make_blind(text_model: Path, out: Path) -> Path:
    """A text model with eyes that have learned nothing: gates at zero."""
    from flyweight.vision.add import add_vision

    return add_vision(str(text_model), out, encoder="tiny", image_size=64, patch_size=16)


def make_seeing(blind: Path, out: Path) -> Path:
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
    out.mkdir(parents=True)
    save_vision(opened, out, "drawn")
    return out


def picture(seed: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    """A picture of coloured squares."""
    rng = random.Random(seed)
    small = Image.new("RGB", (5, 4))
    small.putdata([tuple(rng.randrange(256) for _ in range(3)) for _ in range(20)])
    return small.resize(size, Image.Resampling.NEAREST)
