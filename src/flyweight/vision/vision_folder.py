"""A folder with eyes, opened and written again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flyweight.checkpoint import silence_transformers
from flyweight.errors import OptionError, TeacherError, reason_of
from flyweight.folder import CARD, EYES_NAMES, read_card
from flyweight.runtime.chat_format import ChatFormat
from flyweight.shrink.stream import copy_processor
from flyweight.vision.eyes import is_eyes, save_eyes
from flyweight.vision.facts import copy_texts, read_facts, write_facts
from flyweight.vision.pixels import Cutter
from flyweight.vision.prompts import format_of
from flyweight.vision.writing import save_model, stored


@dataclass(frozen=True)
class Opened:
    """A Mllama folder in memory, with all that turns pictures and words into its inputs."""

    folder: Path
    model: Any
    tokenizer: Any
    cutter: Cutter

    @cached_property
    def form(self) -> ChatFormat:
        """How conversations are written; OptionError without a chat template."""
        return format_of(self.tokenizer, str(self.folder))

    @property
    def image_id(self) -> int:
        """The token that stands for a picture."""
        return int(self.model.config.image_token_index)

    @property
    def context(self) -> int:
        """The longest sequence that it was made for, in tokens."""
        return int(self.model.config.text_config.max_position_embeddings)


def open_vision(folder: Path, bits: int = 32) -> Opened:
    """Open a Mllama folder; TeacherError for one that is none.

    At 8 bits its model has the weights of the folder's file of 8 bits, where there is one.
    """
    from transformers import AutoTokenizer

    from flyweight.vision.mllama import load, load_int8

    silence_transformers()
    folder = Path(folder)
    kind = model_type(folder)
    if kind != "mllama":
        raise TeacherError(
            f"{folder}: has no eyes (it is a {kind}). Give it some: flyweight add-vision."
        )
    if is_eyes(folder):
        raise TeacherError(
            f"{folder}: holds eyes alone. Put them together with their language model: flyweight "
            f"add-vision MODEL OUT --encoder {folder}."
        )
    try:
        packed = folder / EYES_NAMES[8]
        model = load_int8(folder, packed) if bits == 8 and packed.is_file() else load(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        cutter = Cutter.of(folder)
    except TeacherError:
        raise
    except Exception as error:  # transformers raises many kinds for a broken checkpoint
        raise TeacherError(
            f"{folder}: cannot be read ({reason_of(error)}). Make it again."
        ) from error
    return Opened(folder, model, tokenizer, cutter)


def has_eyes(place: Path) -> bool:
    """Whether a path is a Mllama folder."""
    try:
        return place.is_dir() and model_type(place) == "mllama"
    except (TeacherError, OSError):  # no model, or a name that no path can have
        return False


def bits_of(folder: Path, asked: int | None = None) -> int:
    """The bits that a folder's weights are held in: those `asked` for, else those it was judged at.

    What is stored in 16 is held in 32. OptionError for others than those and 8.
    """
    if asked not in (None, 32, *EYES_NAMES):
        choices = " or ".join(map(str, EYES_NAMES))
        raise OptionError(f"--bits is {asked}: {folder} has eyes. Give {choices}.")
    if asked is None:
        asked = read_card(folder).bits if (folder / CARD).exists() else 32
        if not list(folder.glob("model*.safetensors")) and (folder / EYES_NAMES[8]).is_file():
            asked = 8  # there is nothing else
    return 32 if asked == 16 else asked


def weights_of(folder: Path, bits: int = 32) -> list[Path]:
    """The files of a folder's weights at `bits`; TeacherError where there are none."""
    packed = folder / EYES_NAMES[8]
    if bits == 8 and packed.is_file():
        return [packed]
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise TeacherError(f"{folder}: no *.safetensors in the folder. Add the weights.")
    return files


def model_type(folder: Path) -> str:
    """The architecture that a folder's config names; TeacherError where it names none."""
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(told.get("model_type"))
    except (OSError, ValueError, AttributeError) as error:
        raise TeacherError(f"{folder}: no config.json to read. Give a model folder.") from error


def save_vision(opened: Opened, folder: Path, language: str, eyes_only: bool = False) -> None:
    """Write a folder like the one that was opened, with what its model has become.

    Where that is all of it, the model has its weights in the folder's type from then on.
    """
    facts = read_facts(opened.folder)
    name, kept = facts.get("language_model", str(opened.folder)), {}
    copy_processor(opened.folder, folder)
    if eyes_only:
        save_eyes(opened.model, folder, stored(opened.folder))
    else:
        save_model(opened.model, folder, stored(opened.folder))
        opened.tokenizer.save_pretrained(folder)
        kept = copy_texts(opened.folder, folder)
    write_facts(folder, name, language, kept, eyes_only)


__all__ = ["Opened", "bits_of", "has_eyes", "open_vision", "save_vision", "weights_of"]
