"""What an engine has read, in a file that says what it belongs to and that it is whole.

One line of JSON (the model's hash, the state's hash), then the engine's own bytes. Engines trust
those bytes: a changed one could make them crash, so that nothing goes in that is not as written.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from flyweight.errors import EngineError, FolderError
from flyweight.folder import disk_errors

_FORMAT = "flyweight-state-1"
_LONGEST_LINE = 4096


def write_state(file: Path, state: bytes, identity: dict[str, Any]) -> None:
    """Write a state, whole or not at all. Raises FolderError or NoSpace."""
    head = {"format": _FORMAT, "sha256": hashlib.sha256(state).hexdigest(), **identity}
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with disk_errors(file):
            temporary.write_bytes(json.dumps(head).encode() + b"\n" + state)
            temporary.replace(file)
    except OSError as error:
        raise FolderError(f"{file}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_state(file: Path, identity: dict[str, Any]) -> bytes:
    """The state in a file; EngineError for one that is damaged or of another model."""
    try:
        with file.open("rb") as opened:
            line, state = opened.readline(_LONGEST_LINE), opened.read()
    except OSError as error:
        raise EngineError(f"{file}: cannot be read: {error.strerror}") from error
    head = _head(line)
    if head.get("sha256") != hashlib.sha256(state).hexdigest():
        raise EngineError(f"{file}: is no saved state, or damaged; save it again")
    if any(head.get(key) != value for key, value in identity.items()):
        raise EngineError(
            f"{file}: was saved with another model, engine or width of keys and values"
        )
    return state


def _head(line: bytes) -> dict[str, Any]:
    """What the first line says; nothing where it is not of this format."""
    try:
        head = json.loads(line)
        return head if head["format"] == _FORMAT else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


__all__ = ["read_state", "write_state"]
