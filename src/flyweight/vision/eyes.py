"""Eyes apart from the language model that they were trained for: what is new of a Mllama folder.

A language model that does not change need not be stored twice: eyes are some megabytes beside it,
and are put together with it again where they are used. They know it by its hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import MllamaConfig

from flyweight.checkpoint import Checkpoint
from flyweight.errors import TeacherError, reason_of
from flyweight.vision.facts import copy_texts, read_facts, write_facts
from flyweight.vision.language import (
    EMBEDDED,
    EXTRA,
    NEW_ROWS,
    eye_tensors,
    put_language,
)
from flyweight.vision.mllama import Mllama
from flyweight.vision.pixels import Cutter
from flyweight.vision.writing import image_token, read_language, save_model, stored, write_processor

WEIGHTS = "eyes.safetensors"


def config_of(folder: Path) -> Any:
    """The config of a Mllama folder; TeacherError for one that cannot be read."""
    try:
        return MllamaConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for an odd config
        raise TeacherError(
            f"{folder}: its config.json cannot be used ({reason_of(error)})."
        ) from error


def save_eyes(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write what is new of a Mllama, in this type, and its config."""
    tensors = {name: t.detach().to(dtype).contiguous() for name, t in eye_tensors(model)}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    model.config.save_pretrained(folder)


def is_eyes(folder: Path) -> bool:
    """Whether a folder holds eyes alone."""
    return (folder / WEIGHTS).is_file()


def join_eyes(source: Checkpoint, eyes: Path, folder: Path) -> None:
    """Write the Mllama of a text model and the eyes that were trained for it.

    TeacherError if they were trained for another one.
    """
    text, found = read_language(source)
    if read_facts(eyes).get("language_sha256") != found:
        raise TeacherError(
            f"{eyes}: these eyes were trained for another language model than {source.name}. Use "
            "theirs, or train eyes for this one."
        )
    config = config_of(eyes)
    pictures = Cutter.of(eyes).processor
    tokenizer = source.tokenizer()
    if image_token(tokenizer, source) != config.image_token_index:
        raise TeacherError(f"{source.name}: its tokenizer is not the one of the eyes in {eyes}.")
    model = Mllama(config).eval()
    put_language(model, text)
    model.generation_config = text.generation_config
    del text  # never all of it twice
    given = _read(eyes)
    missing = {name for name, _ in eye_tensors(model)} - given.keys()
    if missing:
        raise TeacherError(f"{eyes}: {len(missing)} tensors are missing, such as {min(missing)}.")
    new_rows = given.pop(NEW_ROWS)
    with torch.no_grad():
        model.get_parameter(EMBEDDED)[-EXTRA:] = new_rows.float()
    model.load_state_dict({name: t.float() for name, t in given.items()}, strict=False)
    save_model(model, folder, stored(source.path))
    write_processor(tokenizer, pictures, folder)
    write_facts(folder, source.name, found, copy_texts(source.path, folder))


def _read(eyes: Path) -> dict[str, Any]:
    try:
        return load_file(eyes / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise TeacherError(f"{eyes / WEIGHTS} cannot be read ({error}). Get it again.") from error


__all__ = ["WEIGHTS", "config_of", "is_eyes", "join_eyes", "save_eyes"]
