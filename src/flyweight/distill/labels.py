"""Learning to classify: what a teacher says of a text's labels, and a loss towards it.

A row has `input_ids` [T], `label` (its number, -1 for none) and, once the teacher was asked, `said`
float32 [C], the log-probability of each label. A batch of such rows (`trainer.collate`) has
`lengths` int64 [B], `labels` int64 [B] and `said` [B, C].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.anatomy import family_of
from flyweight.distill.losses import Batch
from flyweight.distill.trainer import Row, collate, fast_math
from flyweight.errors import TeacherError
from flyweight.placed import placed
from flyweight.progress import track
from flyweight.tasks.labels import Labelled

BATCH = 64
TITLE = "Asking the teacher"


def label_rows(examples: Sequence[Labelled]) -> list[Row]:
    """Training rows, every text counting the same."""
    rows = []
    for example in examples:
        weights = np.ones(len(example), dtype=np.float32)  # of tokens: not asked for here
        label = -1 if example.label is None else example.label
        rows.append({"input_ids": example.ids, "weights": weights, "label": label})
    return rows


def label_logits(model: Any, batch: Batch) -> Tensor:
    """Logits float32 [B, C]."""
    places = torch.arange(batch["input_ids"].shape[1], device=batch["input_ids"].device)
    given = family_of(model.config).inputs(places < batch["lengths"][:, None])
    return model(input_ids=batch["input_ids"], **given).logits.float()


@dataclass(frozen=True)
class LabelDistillation:
    """kl x KL(teacher || student) + (1 - kl) x cross-entropy on the labels, in nats a text.

    A text without a label counts by its divergence alone; with kl 0 the teacher is not needed.
    """

    kl: float

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        log_q = label_logits(model, batch).log_softmax(-1)
        loss = log_q.new_zeros(())
        if self.kl:
            p = batch["said"].exp()
            loss = loss + self.kl * (p * (batch["said"] - log_q)).sum()
        if self.kl < 1:
            picked = F.nll_loss(log_q, batch["labels"], ignore_index=-1, reduction="sum")
            loss = loss + (1 - self.kl) * picked
        return loss * batch.get("share", 1.0) / len(log_q)  # of a part (parts.py): of the whole


@torch.inference_mode()
def ask_labels(teacher: Any, rows: Sequence[Row], title: str = TITLE) -> np.ndarray:
    """float32 [n, C]: what a model says of each row's text, as log-probabilities.

    Without a `title` no bar is shown. Raises TeacherError where they are no numbers.
    """
    found = np.zeros((len(rows), teacher.config.num_labels), dtype=np.float32)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]["input_ids"]))
    batches = [order[first : first + BATCH] for first in range(0, len(order), BATCH)]
    with placed(teacher):
        for places in track(batches, title) if title else batches:
            batch = collate([rows[place] for place in places])
            batch = {name: each.to(teacher.device) for name, each in batch.items()}
            with fast_math(batch["input_ids"]):
                found[places] = label_logits(teacher, batch).log_softmax(-1).cpu().numpy()
    if not np.isfinite(found).all():
        raise TeacherError(
            "the teacher's logits are no numbers (NaN or infinite). Download or save it again."
        )
    return found


def with_said(rows: Sequence[Row], said: np.ndarray) -> list[Row]:
    """The rows with what the teacher said of each."""
    return [row | {"said": each} for row, each in zip(rows, said, strict=True)]


__all__ = ["LabelDistillation", "ask_labels", "label_logits", "label_rows", "with_said"]
