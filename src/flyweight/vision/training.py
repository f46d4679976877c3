"""Eyes in training: stages that can be taken up again, and a language model that stays as it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flyweight.distill.trainer import Row, Schedule, train
from flyweight.errors import FolderError, TeacherError
from flyweight.folder import disk_errors, make_place, new_folder, sha256_of
from flyweight.tasks.items import Task
from flyweight.vision.encoded import Encoded
from flyweight.vision.language import language_sha256, language_tensors
from flyweight.vision.objective import AboutPictures, only_eyes, open_gates
from flyweight.vision.pixels import Shelf
from flyweight.vision.rows import name_of, pictures_of, rows_of, shelve
from flyweight.vision.vision_folder import Opened, open_vision, save_vision

LOCK = "lock"
KEPT = ("*/checkpoint-*", "*.bf16", "*.u8")  # what took long: learned, seen, cut


class Pupil:
    """A model whose eyes are taught; its work lies in `work` until it is saved."""

    def __init__(self, opened: Opened, work: Path) -> None:
        self.opened, self.work = opened, work
        self.language = language_sha256(language_tensors(opened.model))
        files = sorted(path for path in opened.folder.iterdir() if path.is_file())
        self.past = [name_of(*((path.name, sha256_of(path)) for path in files))]

    def learn(
        self,
        task: Task,
        file: Path,
        pictures: Mapping[str, str],
        schedule: Schedule,
        title: str,
        *,
        freeze_encoder: bool = False,
    ) -> None:
        """Train on a task's train items, or take up what was learned of them before.

        `pictures` are the hashes of its pictures' files by path. With `freeze_encoder` the adapter
        alone learns.
        """
        opened, items = self.opened, task.train
        names = pictures_of(items, file)
        rows = rows_of(items, names, opened, file)
        told = [pictures[name] for name in names]
        self.past.append(name_of(self.past, task.sha256, told, schedule, freeze_encoder))
        place = self.work / f"{name_of(self.past[0], told)}.u8"
        shelf: Shelf | Encoded = shelve(place, opened.cutter, names, file)
        if freeze_encoder:
            shelf = Encoded.fill(place.with_suffix(".bf16"), opened.model, shelf)
        teach(opened.model, shelf, rows, schedule, title, self.work / self.past[-1])

    def save(self, out: Path, eyes_only: bool) -> None:
        """Write the folder, or the eyes alone; TeacherError if the language model has changed."""
        after = language_sha256(language_tensors(self.opened.model))
        if after != self.language:
            raise TeacherError(f"{out}: the language model changed in training; nothing is written")
        with new_folder(out) as folder:
            save_vision(self.opened, folder, after, eyes_only)


def teach(
    model: Any,
    shelf: Shelf | Encoded,
    rows: Sequence[Row],
    schedule: Schedule,
    title: str,
    keep: Path,
) -> None:
    """Train a model's eyes in place on rows about pictures; see trainer.train.

    Of pictures that its encoder has seen already, the adapter alone learns.
    """
    objective = AboutPictures(model, shelf)
    open_gates(model)
    only_eyes(model, freeze_encoder=isinstance(shelf, Encoded))
    train(model, rows, objective, schedule, title, keep=keep)
    model.requires_grad_(False)
    objective.keep_learned(model)


@contextmanager
def pupil_of(folder: Path, out: Path) -> Iterator[Pupil]:
    """The pupil that a Mllama folder holds, for this process alone; see `work_beside`."""
    opened = open_vision(folder)
    with work_beside(out) as work:
        yield Pupil(opened, work)


@contextmanager
def work_beside(out: Path) -> Iterator[Path]:
    """A folder beside `out` for what is learned on the way to it, for this process alone.

    It is kept when the training is stopped, and goes when it ends well, or before anything was
    learned, seen or cut. Raises FolderError where another process is at it.
    """
    out = out.absolute()
    work = out.with_name(f"{out.name}.work")
    make_place(work)
    lock = FileLock(work / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderError(
            f"{out} is being taught by another process. Wait for it, or choose another folder."
        ) from None
    ended = False
    try:
        with disk_errors(work):
            yield work
        ended = True
    finally:
        if ended or not any(map(any, map(work.glob, KEPT))):
            shutil.rmtree(work, ignore_errors=True)  # while it is ours: it may take long
        lock.release()


__all__ = ["Pupil", "pupil_of", "teach", "work_beside"]
