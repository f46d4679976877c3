"""What can go wrong, as one tree: every message says what, where, and what to do.

FlyweightError                 the root: one line for a person, exit status 2
├── TeacherError               the teacher is missing, unreadable, or not safetensors
│   └── UnsupportedFamily      its architecture is not one that Flyweight can cut
├── TaskError                  the task file is missing, broken, or lacks a field
├── OptionError                an option is out of range or does not fit the others
├── FolderError                an output folder cannot be written or is not ours to replace
│   └── NoSpace                the disk has not enough room; says how much is needed
├── ParityError                an exported file disagrees with the checkpoint it came from
├── EngineError                the runtime refused a model or died
├── ImageError                 a picture is not to be had, broken, too large, or not allowed
└── MissingExtra               an optional dependency is absent; says what to install
"""

from __future__ import annotations


class FlyweightError(Exception):
    """The root of the tree: one line that says what, where, and what to do."""

    exit_status = 2


class TeacherError(FlyweightError):
    """The teacher is missing, unreadable, or not safetensors."""


class UnsupportedFamily(TeacherError):
    """The teacher's architecture is not one that Flyweight can cut."""


class TaskError(FlyweightError):
    """The task file is missing, broken, or lacks a field."""


class OptionError(FlyweightError):
    """An option is out of range or does not fit the others."""


class FolderError(FlyweightError):
    """An output folder cannot be written or is not ours to replace."""


class NoSpace(FolderError):
    """The disk has not enough room."""


class ParityError(FlyweightError):
    """An exported file disagrees with the checkpoint it came from."""


class EngineError(FlyweightError):
    """The runtime refused a model or died."""


class ImageError(FlyweightError):
    """A picture is not to be had, broken, too large, or not allowed."""


class MissingExtra(FlyweightError):
    """An optional dependency is absent."""


def reason_of(error: BaseException) -> str:
    """What a library's error says, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C ended it, also where a library's tidying up then failed with another error.

    Python keeps what was raised while a `finally` ran as the context of what came of it.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


__all__ = [
    "EngineError",
    "FlyweightError",
    "FolderError",
    "ImageError",
    "MissingExtra",
    "NoSpace",
    "OptionError",
    "ParityError",
    "TaskError",
    "TeacherError",
    "UnsupportedFamily",
    "reason_of",
    "was_interrupted",
]
