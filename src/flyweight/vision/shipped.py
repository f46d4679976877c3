"""The small model with eyes that comes with Flyweight, put together when it is first used."""

from __future__ import annotations

from pathlib import Path

import flyweight
from flyweight.checkpoint import open_checkpoint
from flyweight.errors import FolderError
from flyweight.folder import MARK, new_folder, sha256_of
from flyweight.progress import say
from flyweight.runtime.hardware import cache_folder
from flyweight.vision.eyes import WEIGHTS, join_eyes

HOME = Path(flyweight.__file__).parent / "demo"
NAME = "plant-eyes"


def shipped() -> Path:
    """The Mllama folder of the embedded language model and its eyes, in the user's cache."""
    eyes, text = HOME / "eyes", HOME / "teacher"
    if not (eyes / WEIGHTS).is_file():
        raise FolderError(
            "no model with eyes comes with this version. Give one: flyweight add-vision."
        )
    key = sha256_of(eyes / WEIGHTS)[:12]
    place = cache_folder() / f"{NAME}-{key}"
    if not (place / MARK).exists():
        say("The model with eyes that comes along is put together; this happens once.")
        with new_folder(place) as folder:
            join_eyes(open_checkpoint(text), eyes, folder)
    return place


__all__ = ["shipped"]
