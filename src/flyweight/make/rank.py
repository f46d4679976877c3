"""Which shape of each size to distil: cut them all, and see who is nearest to the teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyweight.anatomy import Family, Shape
from flyweight.distill.labels import ask_labels
from flyweight.distill.losses import Distillation
from flyweight.distill.mean import mean_loss
from flyweight.distill.trainer import Row
from flyweight.progress import track
from flyweight.shrink.cut import cut_model
from flyweight.shrink.importance import Importance
from flyweight.shrink.shapes import grid

BATCH = 32


@dataclass(frozen=True)
class RankedShape:
    """A shape of the grid at one level, with its divergence from the teacher after the cut."""

    shape: Shape
    parameters: int
    level: float
    kl: float  # nats a token of the dev answers, of an encoder nats a text


def divergence(model: Any, rows: Sequence[Row]) -> float:
    """Mean KL(teacher || model) in nats an answer token, over recorded rows."""
    return mean_loss(Distillation(kl=1.0), model, rows, BATCH)


def label_divergence(model: Any, rows: Sequence[Row], said: np.ndarray) -> float:
    """Mean KL(teacher || model) in nats a text; the teacher `said` [n, C] of rows of labels.py."""
    return float((np.exp(said) * (said - ask_labels(model, rows, title=""))).sum(1).mean())


def rank_shapes(
    teacher: Any,
    family: Family,
    importance: Importance,
    apart: Callable[[Any], float],
    level: float,
    *,
    heads: bool = False,
) -> list[RankedShape]:
    """The grid's shapes with about `level` of the parameters, the least divergence first.

    `apart` tells a cut model's divergence on dev; `heads` also cuts query heads within groups.
    Empty where the grid has no such shape.
    """
    old = family.shape_of(teacher.config)
    candidates = grid(family, old, teacher.config, level, heads=heads)
    if not candidates:
        return []
    ranked = []
    for candidate in track(candidates, f"Ranking shapes of {level:.0%}"):
        student = cut_model(teacher, family, importance.keep(old, candidate.shape))
        kl = apart(student)
        count = family.count(candidate.shape, student.config)  # which blocks stay is known now
        ranked.append(RankedShape(candidate.shape, count, level, kl))
    return sorted(ranked, key=lambda shape: shape.kl)
