"""The small model with eyes that comes with Flyweight, put together when it is first used."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

import flyweight
from flyweight.checkpoint import open_checkpoint
from flyweight.errors import FolderError
from flyweight.folder import MARK, disk_errors, make_place, new_folder, sha256_of
from flyweight.progress import say
from flyweight.runtime.hardware import cache_folder
from flyweight.vision.eyes import is_eyes, join_eyes
from flyweight.vision.rows import name_of

HOME = Path(flyweight.__file__).parent / "demo"
NAME = "plant-eyes"


def shipped() -> Path:
    """The Mllama folder of the embedded language model and its eyes, in the user's cache.

    It is put together once for all that it is made of. FolderError for a cache that cannot be
    written.
    """
    eyes, text = HOME / "eyes", HOME / "teacher"
    if not is_eyes(eyes):
        raise FolderError(
            "no model with eyes comes with this version. Give one: flyweight add-vision."
        )
    parts = sorted(path for folder in (eyes, text) for path in folder.iterdir() if path.is_file())
    told = ((str(path.relative_to(HOME)), sha256_of(path)) for path in parts)
    place = cache_folder() / f"{NAME}-{name_of(flyweight.__version__, *told)}"
    if not (place / MARK).exists():
        make_place(place.parent)
        with disk_errors(place), FileLock(f"{place}.lock"):  # another may be at it
            if not (place / MARK).exists():
                say("The model with eyes that comes along is put together; this happens once.")
                with new_folder(place) as folder:
                    join_eyes(open_checkpoint(text), eyes, folder)
    return place


__all__ = ["shipped"]
