"""The items of a task as rows about its pictures, and how far models are apart on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flyweight.distill.alignment import align
from flyweight.distill.chunked import chunked_loss
from flyweight.distill.divergences import Blend
from flyweight.distill.head import head_of
from flyweight.distill.judges import Answers, Live
from flyweight.distill.losses import Batch, wanted_tokens
from flyweight.distill.mean import mean_loss
from flyweight.distill.trainer import Row
from flyweight.shrink.batches import Feeding
from flyweight.tasks.items import Item, Task
from flyweight.vision.feeding import feeding
from flyweight.vision.objective import looking
from flyweight.vision.pixels import Shelf
from flyweight.vision.rows import pictures_of, rows_of, shelve
from flyweight.vision.vision_folder import Opened

BATCH = 16  # rows, with a picture each


@dataclass(frozen=True)
class Sights:
    """A task's pictures, cut for a model, and its items as that model reads them."""

    opened: Opened
    shelf: Shelf
    names: Sequence[str]  # of the pictures, by their numbers
    file: Path  # the task's, from which the names are paths

    @classmethod
    def of(cls, opened: Opened, task: Task, file: Path, place: Path) -> Sights:
        """The sights of a task in a file, kept in a folder. TaskError for an item without one."""
        names = pictures_of([item for split in task.splits.values() for item in split], file)
        return cls(opened, shelve(place / "pictures.u8", opened.cutter, names, file), names, file)

    @property
    def feeding(self) -> Feeding:
        """What feeds a model where its parts are weighed."""
        return feeding(self.shelf)

    def rows(self, items: Sequence[Item]) -> list[Row]:
        """The items about each picture side by side; see rows.py."""
        return rows_of(items, self.names, self.opened, self.file)

    def apart(self, teacher: Any, items: Sequence[Item]) -> Callable[[Any], float]:
        """Tells a model's mean KL(teacher || model) in nats an answer token of the items."""
        rows, measure = self.rows(items), SeeingDistillation(self.shelf, 1.0, teacher)
        return lambda model: mean_loss(measure, model, rows, BATCH)


@dataclass(frozen=True)
class SeeingDistillation:
    """kl x divergence from a teacher about pictures + (1 - kl) x cross-entropy of the answers.

    Of all of a student, not of its eyes alone as objective.AboutPictures is. `teacher`, which sees
    the same pictures as they are cut for both, may be None where `kl` is 0.
    """

    shelf: Shelf
    kl: float
    teacher: Any = None

    def __call__(self, model: Any, batch: Batch) -> Tensor:
        targets, weights = wanted_tokens(batch)
        head = head_of(model)
        judge: Answers | Live = Answers(targets)
        if self.kl:
            with torch.no_grad():
                said = seen_hidden(self.teacher, self.shelf, batch)
            theirs = head_of(self.teacher)
            alignment = align(len(head.weight), len(theirs.weight))
            judge = Live(Blend(self.kl), said, theirs, targets, alignment)
        return chunked_loss(seen_hidden(model, self.shelf, batch), head, weights, judge)


def seen_hidden(model: Any, shelf: Shelf, batch: Batch) -> Tensor:
    """Final hidden states [N, D] before each token of a batch that is wanted."""
    ids, image_id = batch["input_ids"], model.config.image_token_index
    given = looking(shelf.inputs, ids, batch["position_ids"], batch["picture"], image_id)
    hidden = model.model(input_ids=ids, **given).last_hidden_state  # [B, T, D]
    return hidden[:, :-1][batch["weights"][:, 1:] != 0]


__all__ = ["SeeingDistillation", "Sights", "seen_hidden"]
