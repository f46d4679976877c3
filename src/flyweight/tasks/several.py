"""Several tasks as one, in which every item knows where it is from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flyweight.errors import TaskError
from flyweight.tasks.items import Item, Task, content_sha256
from flyweight.tasks.split import SPLITS


def combine(tasks: Sequence[Task]) -> Task:
    """The tasks as one, each split evenly mixed; one task alone is left as it is.

    Raises TaskError where two have one name, or where one trains on what another tests.
    """
    if len(tasks) == 1:
        return tasks[0]
    names = [task.name for task in tasks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TaskError(f"{twice}: two tasks have this name. Rename one of the files.")
    _refuse_leak(tasks)
    parts = {split: _mixed([_named(task, split) for task in tasks]) for split in SPLITS}
    return Task(
        " + ".join(names),
        **parts,
        sha256=combined_sha256({task.name: task.sha256 for task in tasks}),
        test_sha256=content_sha256(parts["test"]),
    )


def combined_sha256(files: Mapping[str, str]) -> str:
    """The hash of a task from those of its files by name; of a single one its own."""
    if len(files) == 1:
        return next(iter(files.values()))
    told = "\n".join(f"{name} {sha256}" for name, sha256 in files.items())
    return hashlib.sha256(told.encode()).hexdigest()


def _named(task: Task, split: str) -> list[Item]:
    return [
        replace(item, task=task.name, group=f"{task.name}: {item.group}")
        for item in task.splits[split]
    ]


def _mixed(parts: Sequence[Sequence[Item]]) -> tuple[Item, ...]:
    """All items, those of each part evenly spread: the first few stand for all of them."""
    placed = [
        ((place + 0.5) / len(part), number, item)
        for number, part in enumerate(parts)
        for place, item in enumerate(part)
    ]
    return tuple(item for _, _, item in sorted(placed, key=lambda each: each[:2]))


def _refuse_leak(tasks: Sequence[Task]) -> None:
    trained = {_asked(item): (task, item) for task in tasks for item in task.train}
    for task in tasks:
        for item in task.test:
            other, same = trained.get(_asked(item), (task, item))
            if other is not task:
                raise TaskError(
                    f"{task.name}, line {item.line}: this test prompt is a train prompt of "
                    f"{other.name} (line {same.line}). Remove one of the two."
                )


def _asked(item: Item) -> str:
    """A hex name for what the model is given, its picture by its whole path."""
    return replace(item, image=item.image and str(item.picture)).asked_sha256


__all__ = ["combine", "combined_sha256"]
