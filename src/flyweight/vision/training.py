"""Eyes in training: stages that can be taken up again, and a language model that stays as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

from flyweight.distill.trainer import Schedule, train
from flyweight.errors import TeacherError
from flyweight.folder import disk_errors, make_place, new_folder, sha256_of
from flyweight.tasks.items import Task
from flyweight.vision.language import language_sha256, language_tensors
from flyweight.vision.objective import AboutPictures, only_eyes
from flyweight.vision.rows import name_of, pictures_of, rows_of, shelve
from flyweight.vision.vision_folder import Opened, open_vision, save_vision


class Pupil:
    """A model whose eyes are taught; its work lies in `work` until it is saved."""

    def __init__(self, opened: Opened, work: Path) -> None:
        self.opened, self.work = opened, work
        self.language = language_sha256(language_tensors(opened.model))
        self.past = [name_of(*(sha256_of(f) for f in sorted(opened.folder.glob("*.safetensors"))))]

    @classmethod
    def of(cls, folder: Path, out: Path) -> Pupil:
        """The pupil that a Mllama folder holds."""
        out = out.absolute()
        work = out.with_name(f"{out.name}.work")
        opened = open_vision(folder)
        make_place(work)
        return cls(opened, work)

    def learn(self, task: Task, file: Path, schedule: Schedule, title: str) -> None:
        """Train on a task's train items, or take up what was learned of them before."""
        opened, items = self.opened, task.train
        names = pictures_of(items, file)
        rows = rows_of(items, names, opened.form, opened.tokenizer, opened.context, file)
        self.past.append(name_of(self.past, task.sha256, schedule))
        keep = self.work / self.past[-1]
        with disk_errors(self.work):
            shelf = shelve(self.work / "pictures.u8", opened.cutter, names, file)
            objective = AboutPictures(opened.model, shelf)
            only_eyes(opened.model)
            train(opened.model, rows, objective, schedule, title, keep=keep)
            opened.model.requires_grad_(False)
            objective.keep_learned(opened.model)

    def save(self, out: Path, eyes_only: bool) -> None:
        """Write the folder, or the eyes alone; TeacherError if the language model has changed."""
        after = language_sha256(language_tensors(self.opened.model))
        if after != self.language:
            raise TeacherError(f"{out}: the language model changed in training; nothing is written")
        with new_folder(out) as folder:
            save_vision(self.opened, folder, after, eyes_only)
        shutil.rmtree(self.work, ignore_errors=True)


__all__ = ["Pupil"]
