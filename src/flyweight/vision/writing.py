"""The parts of a Mllama folder: weights in the type that they came in, tokenizer, processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from flyweight.checkpoint import Checkpoint
from flyweight.errors import TeacherError
from flyweight.vision.language import EXTRA, IMAGE, language_sha256, text_tensors
from flyweight.vision.prompts import FLATTEN, template_of

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16}


def stored(folder: Path) -> torch.dtype:
    """The type that holds every weight of a folder exactly: theirs, or fp32 where they differ."""
    found = set()
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            found |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    return TYPES.get(found.pop(), torch.float32) if len(found) == 1 else torch.float32


def read_language(source: Checkpoint) -> tuple[Any, str]:
    """A text model in the type that it came in, and its hash."""
    text = source.model()
    sha256 = language_sha256(text_tensors(text))
    return text.to(stored(source.path)), sha256


def save_model(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write a model's weights in this type, which it has from then on, and its config."""
    model.to(dtype).save_pretrained(folder)


def image_token(tokenizer: Any, source: Checkpoint) -> int:
    """The number of the token that stands for a picture, a new one where there is none."""
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]},
                                 replace_extra_special_tokens=False)  # fmt: skip
    number = tokenizer.convert_tokens_to_ids(IMAGE)
    if number >= source.config.vocab_size + EXTRA:
        raise TeacherError(
            f"{source.name}: its tokenizer has {number:,} tokens, its embedding "
            f"{source.config.vocab_size:,} rows. Use a model whose tokenizer fits."
        )
    return number


def write_processor(tokenizer: Any, pictures: Any, folder: Path) -> None:
    """Write tokenizer, chat template and image processor for transformers' AutoProcessor."""
    from transformers import MllamaProcessor

    template = template_of(tokenizer)
    if template and FLATTEN not in template:
        tokenizer.chat_template = FLATTEN + template
    MllamaProcessor(pictures, tokenizer, tokenizer.chat_template).save_pretrained(folder)


__all__ = ["image_token", "read_language", "save_model", "stored", "write_processor"]
