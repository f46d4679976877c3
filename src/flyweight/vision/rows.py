"""Items that ask of pictures as training rows: one for each picture, with all its questions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flyweight.distill.trainer import Row
from flyweight.errors import FlyweightError, TaskError
from flyweight.folder import sha256_of
from flyweight.progress import track
from flyweight.tasks.encode import answer_ids
from flyweight.tasks.items import Item, Task, short
from flyweight.vision.images import open_image
from flyweight.vision.pixels import Cutter, Shelf
from flyweight.vision.prompts import with_picture
from flyweight.vision.vision_folder import Opened

LONGEST = 512  # tokens of a row with several questions


def pictures_of(items: Sequence[Item], file: Path) -> dict[str, str]:
    """The pictures that items ask of, by path, as the task names them; TaskError without one."""
    for item in items:
        if item.image is None:
            raise TaskError(
                f"{file.name}, line {item.line}: no image. Add the field image, since a model with "
                "eyes is taught and tried on pictures, or take a model without."
            )
        if all(message["role"] != "user" for message in item.messages):
            raise TaskError(
                f"{file.name}, line {item.line}: nobody asks, so the picture has no place. Add a "
                "message of the role user."
            )
    return {str(item.picture): str(item.image) for item in items}


def opened(names: Mapping[str, str], file: Path, title: str) -> Iterator[Image.Image]:
    """The pictures of `pictures_of`; TaskError names a bad one, and the task's `file`."""
    for path, name in track(list(names.items()), title):
        try:
            yield open_image(Path(path), name)
        except FlyweightError as error:
            raise TaskError(f"{file.name}: {error}") from error


def shelve(place: Path, cutter: Cutter, names: Mapping[str, str], file: Path) -> Shelf:
    """Every picture cut into tiles, in a file at `place`, once."""
    if place.is_file():
        return Shelf(place, cutter)
    return Shelf.fill(place, cutter, opened(names, file, "Reading pictures"), len(names))


def hashes_of(names: Mapping[str, str], file: Path) -> dict[str, str]:
    """The hash of each picture's file, by its path."""
    return {path: _sha256(path, name, file) for path, name in names.items()}


def refuse_leaks(tasks: Sequence[tuple[Path, Task]]) -> list[dict[str, str]]:
    """The hashes of each task's pictures by their paths.

    TaskError for an item without a picture or with one that cannot be opened, and where any task
    trains on a picture that any holds out, under whatever name. Tasks are told with their files.
    """
    known = []
    trained: dict[str, str] = {}
    for file, task in tasks:
        every = [item for split in task.splits.values() for item in split]
        names = pictures_of(every, file)
        known.append(hashes_of(names, file))
        for _ in opened(names, file, "Checking pictures"):  # now, not after hours
            pass
        trained |= {known[-1][str(item.picture)]: str(item.image) for item in task.train}
    for (file, task), hashes in zip(tasks, known, strict=True):
        for item in (*task.dev, *task.test):
            same = trained.get(hashes[str(item.picture)])
            if same is not None:
                raise TaskError(
                    f"{file.name}, line {item.line}: {item.image} is the training picture {same} "
                    "(a leak). Remove one of the two, or give both the same group."
                )
    return known


def _sha256(path: str, name: str, file: Path) -> str:
    try:
        return sha256_of(Path(path))
    except (OSError, ValueError) as error:  # ValueError: a name that no path can have
        reason = getattr(error, "strerror", None) or error
        raise TaskError(
            f"{file.name}: the picture {short(name)} cannot be read ({reason}). Correct its path, "
            "which begins where the file is."
        ) from error


def rows_of(items: Sequence[Item], names: Iterable[str], opened: Opened, file: Path) -> list[Row]:
    """Rows of the questions about each picture, side by side, none seeing another; answers weigh 1.

    `names`, the paths of the pictures, number them. A picture with more questions than make LONGEST
    tokens has several rows. TaskError for an item that does not fit the model's context.
    """
    numbers = {name: number for number, name in enumerate(names)}
    asked: dict[str, list[Item]] = {}
    for item in items:
        asked.setdefault(str(item.picture), []).append(item)
    prompts: dict[str, list[int]] = {}  # many pictures are asked the same
    rows = []
    for name, about in track(asked.items(), "Reading questions"):
        row = _Row(numbers[name])
        for item in about:
            key = repr(item.messages)
            if key not in prompts:
                prompts[key] = opened.form.prompt(with_picture(item.messages))
            prompt, answer = prompts[key], answer_ids(opened.tokenizer, item.answer or "")
            size = len(prompt) + len(answer)
            if size > opened.context:
                raise TaskError(
                    f"{file.name}, line {item.line}: {size} tokens do not fit the model's context "
                    f"of {opened.context}. Shorten or remove the item."
                )
            if row.ids and len(row.ids) + size > LONGEST:
                rows.append(row.made())
                row = _Row(numbers[name])
            row.add(prompt, answer)
        rows.append(row.made())
    return rows


@dataclass
class _Row:
    """Questions about one picture."""

    picture: int
    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    def add(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """One more question, with its answer."""
        self.ids += [*prompt, *answer]
        self.weights += [0.0] * len(prompt) + [1.0] * len(answer)
        self.positions += range(len(prompt) + len(answer))

    def made(self) -> Row:
        """As the trainer takes it."""
        return {
            "input_ids": np.array(self.ids, np.int32),
            "weights": np.array(self.weights, np.float32),
            "position_ids": np.array(self.positions, np.int32),
            "picture": self.picture,
        }


def name_of(*told: Any) -> str:
    """A short name for what a stage is made from."""
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


__all__ = ["hashes_of", "name_of", "opened", "pictures_of", "refuse_leaks", "rows_of", "shelve"]
