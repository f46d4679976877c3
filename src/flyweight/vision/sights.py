"""The items of a task as rows about its pictures, and how far models are apart on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from flyweight.distill.divergences import Blend
from flyweight.distill.live import LiveDistillation
from flyweight.distill.losses import Batch, before_wanted, cross_entropy
from flyweight.distill.mean import mean_loss
from flyweight.distill.trainer import Row
from flyweight.shrink.batches import Feed
from flyweight.tasks.items import Item
from flyweight.vision.feeding import feed_pictures
from flyweight.vision.objective import looking, tokens_of_picture
from flyweight.vision.pixels import Shelf
from flyweight.vision.rows import rows_of
from flyweight.vision.vision_folder import Opened

BATCH = 16  # rows, with a picture each


@dataclass(frozen=True)
class Sights:
    """A task's pictures, cut for a model, and its items as that model reads them."""

    opened: Opened
    shelf: Shelf
    names: Mapping[str, str]  # of the pictures, as rows.py has them
    file: Path  # the task's, for messages

    @property
    def feed(self) -> Feed:
        """What feeds a model where its parts are weighed."""
        return feed_pictures(self.shelf)

    def rows(self, items: Sequence[Item]) -> list[Row]:
        """The items about each picture side by side; see rows.py."""
        return rows_of(items, self.names, self.opened, self.file)

    def objective(self, kl: float, teacher: Any) -> SeeingDistillation:
        """What a student that is cut from the model is trained towards."""
        besides = tokens_of_picture(self.opened.model)
        return SeeingDistillation(self.shelf, kl, teacher if kl else None, besides)

    def apart(self, teacher: Any, items: Sequence[Item]) -> Callable[[Any], float]:
        """Tells a model's mean KL(teacher || model) in nats an answer token of the items."""
        rows, measure = self.rows(items), self.objective(1.0, teacher)
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
    tokens_besides: int = 0  # of a picture

    def __call__(self, model: Any, batch: Batch) -> Tensor:
        hidden = partial(seen_hidden, shelf=self.shelf)
        if not self.kl:
            return cross_entropy(model, batch, hidden)
        return LiveDistillation(self.teacher, Blend(self.kl), hidden=hidden)(model, batch)


def seen_hidden(model: Any, batch: Batch, shelf: Shelf) -> Tensor:
    """Final hidden states [N, D] before each token of a batch that is wanted."""
    ids, image_id = batch["input_ids"], model.config.image_token_index
    given = looking(shelf.inputs(batch["picture"]), ids, batch["position_ids"], image_id)
    hidden = model.model(input_ids=ids, **given).last_hidden_state  # [B, T, D]
    return before_wanted(hidden, batch)


__all__ = ["SeeingDistillation", "Sights", "seen_hidden"]
