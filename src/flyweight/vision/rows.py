"""Items that ask of pictures as training rows: one for each picture, with all its questions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flyweight.distill.trainer import Row
from flyweight.errors import FlyweightError, TaskError
from flyweight.folder import sha256_of
from flyweight.progress import track
from flyweight.tasks.encode import answer_ids
from flyweight.tasks.items import Item
from flyweight.vision.images import open_image
from flyweight.vision.pixels import Cutter, Shelf
from flyweight.vision.prompts import VisionFormat, with_picture


def pictures_of(items: Sequence[Item], file: Path) -> list[str]:
    """The pictures that items ask of, each once; TaskError for an item without one."""
    for item in items:
        if item.image is None:
            raise TaskError(
                f"{file.name}, line {item.line}: no image. Add the field image, or train on texts "
                "with flyweight distill."
            )
    return list(dict.fromkeys(str(item.image) for item in items))


def opened(names: Sequence[str], file: Path, title: str) -> Iterator[Image.Image]:
    """The pictures, whose names are paths from the task's `file` on; TaskError names a bad one."""
    for name in track(names, title):
        try:
            yield open_image(file.parent / name, name)
        except FlyweightError as error:
            raise TaskError(f"{file.name}: {error}") from error


def shelve(place: Path, cutter: Cutter, names: Sequence[str], file: Path) -> Shelf:
    """Every picture cut into tiles, in a file at `place`."""
    return Shelf.fill(place, cutter, opened(names, file, "Reading pictures"), len(names))


def refuse_shared(train: Sequence[Item], held_out: Sequence[Item], file: Path) -> None:
    """TaskError where a held-out picture is also trained on, under whatever name."""
    known = {name: _sha256(name, file) for name in pictures_of([*train, *held_out], file)}
    trained = {known[str(item.image)]: item.image for item in train}
    for item in held_out:
        same = trained.get(known[str(item.image)])
        if same is not None:
            raise TaskError(
                f"{file.name}, line {item.line}: {item.image} is the training picture {same} (a "
                "leak). Remove one of the two, or give both the same group."
            )


def _sha256(name: str, file: Path) -> str:
    try:
        return sha256_of(file.parent / name)
    except OSError as error:
        raise TaskError(
            f"{file.name}: the picture {name} cannot be read ({error.strerror}). Correct its path, "
            "which begins where the file is."
        ) from error


def rows_of(items: Sequence[Item], names: Sequence[str], form: VisionFormat, tokenizer: Any,
            context: int, file: Path) -> list[Row]:  # fmt: skip
    """A row for each picture: its questions side by side, none seeing another; answers weigh 1."""
    asked: dict[str, list[Item]] = {name: [] for name in names}
    for item in items:
        asked[str(item.image)].append(item)
    rows = []
    for number, name in enumerate(names):
        ids: list[int] = []
        weights: list[float] = []
        positions: list[int] = []
        for item in asked[name]:
            prompt = form.prompt(with_picture(item.messages))
            answer = answer_ids(tokenizer, item.answer or "")
            if len(prompt) + len(answer) > context:
                raise TaskError(
                    f"{file.name}, line {item.line}: {len(prompt) + len(answer)} tokens do not fit "
                    f"the model's context of {context}. Shorten or remove the item."
                )
            ids += prompt + answer
            weights += [0.0] * len(prompt) + [1.0] * len(answer)
            positions += range(len(prompt) + len(answer))
        rows.append({
            "input_ids": np.array(ids, np.int32), "weights": np.array(weights, np.float32),
            "position_ids": np.array(positions, np.int32), "picture": number,
        })  # fmt: skip
    return rows


def name_of(*told: Any) -> str:
    """A short name for what a stage is made from."""
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


__all__ = ["name_of", "opened", "pictures_of", "refuse_shared", "rows_of", "shelve"]
