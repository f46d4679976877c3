"""How often each test split has been opened: looking twice is one more chance to pass by luck.

Kept in the user's state folder (FLYWEIGHT_STATE overrides), so that another output folder does
not make an opened test a fresh one.
"""

from __future__ import annotations

import json
from pathlib import Path

from filelock import FileLock

from flyweight.errors import FolderError
from flyweight.folder import disk_errors, state_folder, write_whole


def openings_file(test_sha256: str) -> Path:
    """Where the openings of this test split are written down."""
    return state_folder() / "openings" / f"{test_sha256}.json"


def count_opening(test_sha256: str, model_sha256: str, question: str) -> int:
    """The number of this opening, from 1; the same model and question again is not a new one.

    The question is what is asked of the model: the bar, its kind, and the score.
    """
    path = openings_file(test_sha256)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            seen, entry = _read(path), [model_sha256, question]
            if entry not in seen:
                seen.append(entry)
                write_whole(path, json.dumps(seen))
    return seen.index(entry) + 1


def _read(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    try:
        seen = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(seen, list):
            raise ValueError("no list")
    except ValueError as error:
        raise FolderError(
            f"{path}: not a record of the openings of a test split ({error}). Bring back a copy, "
            "or remove it and count what was opened before by hand."
        ) from error
    return seen
