"""A tiny language model with eyes whose gates are open, and pictures for it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn


def make_blind(text_model: Path, out: Path, **changes: int) -> Path:
    """A text model with eyes that have learned nothing: gates at zero."""
    from flyweight.vision.add import add_vision

    sizes = {"image_size": 64, "patch_size": 16} | changes
    return add_vision(str(text_model), out, encoder="tiny", **sizes)


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


def seeing_folder(make_llama: Callable[..., Path], folder: Path, layers: int) -> Path:
    """A random model of so many layers of text, with eyes whose gates are open."""
    text = make_llama(folder / "text", num_hidden_layers=layers, vocab_size=300)
    return make_seeing(make_blind(text, folder / "blind", image_size=32, tiles=1), folder / "eyes")


def write_words(folder: Path) -> Path:
    """A task of words alone."""
    file = folder / "words.jsonl"
    lines = [{"prompt": f"what {n}", "answer": "that"} for n in range(9)]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return file


def picture(seed: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    """A picture of coloured squares."""
    rng = random.Random(seed)
    small = Image.new("RGB", (5, 4))
    small.putdata([tuple(rng.randrange(256) for _ in range(3)) for _ in range(20)])
    return small.resize(size, Image.Resampling.NEAREST)


COLOURS = {"red": (220, 30, 30), "green": (20, 180, 40), "blue": (30, 60, 220)}


def draw_lessons(folder: Path, pictures: int = 30) -> Path:
    """A task of pictures of one colour each, with two questions about each."""
    lines = []
    for number in range(pictures):
        rng = random.Random(number)
        colour = rng.choice(list(COLOURS))
        shade = tuple(min(255, max(0, part + rng.randint(-20, 20))) for part in COLOURS[colour])
        Image.new("RGB", (60 + number % 30, 64), shade).save(folder / f"{number}.png")
        split = ("train", "train", "train", "dev", "test")[number % 5]
        told = {"image": f"{number}.png", "answer": colour, "split": split}
        lines += [json.dumps(told | {"prompt": prompt}) for prompt in ("what colour", "which")]
    file = folder / "images.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def tiny_mllama(seed: int = 0, taps: tuple[int, ...] = (-4, -2), plain: bool = True) -> Any:
    """A random Mllama in fp32, transformers' own if `plain`, with weights that hide no mistake.

    Six language layers, of which 3 and 4 look; an encoder of five, whose taps are behind 1 and 3.
    """
    from transformers import MllamaConfig, MllamaForConditionalGeneration

    from flyweight.vision.mllama import Mllama

    text = {
        "vocab_size": 80, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "cross_attention_layers": [3, 4],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "rms_norm_eps": 1e-3,
        "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    vision = {
        "hidden_size": 24, "attention_heads": 3, "intermediate_size": 64, "num_hidden_layers": 5,
        "num_global_layers": 2, "image_size": 16, "patch_size": 8, "vision_output_dim": 72,
        "intermediate_layers_indices": list(taps), "max_num_tiles": 4,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=80)
        model = (MllamaForConditionalGeneration if plain else Mllama)(config)
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                nn.init.uniform_(parameter, 0.5, 1.5)
            elif parameter.numel() == 1:  # a gate
                parameter.data.fill_(0.8)
            else:
                nn.init.normal_(parameter, std=0.2)
    return model.float().eval()


def pictures_for(model: Any, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Noise in one to four tiles for rows of tokens [B, T], which see it from the third on."""
    rows, length = tokens.shape
    vision = model.config.vision_config
    tiles = torch.arange(rows) % 4 + 1
    used = torch.arange(4) < tiles[:, None]  # [B, tiles]
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randn(rows, 1, 4, 3, *[vision.image_size] * 2, generator=generator)
    sees = (torch.arange(length) >= 2)[None, :, None, None] & used[:, None, None]
    return {
        "pixel_values": pixels * used[:, None, :, None, None, None],
        "aspect_ratio_ids": torch.tensor([1, 2, 3, 4])[tiles - 1][:, None],
        "aspect_ratio_mask": used[:, None].long(),
        "cross_attention_mask": sees.long(),
    }
