"""The order in which rows are trained on, and in which batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

POOL = 8  # batches among which rows are sorted by length


@dataclass(frozen=True)
class Batches:
    """What a training reads: for each of its steps a batch, by the `places` of its `rows`.

    `total` is what the weights of a batch's predicted tokens sum to on average.
    """

    rows: Sequence[Mapping[str, Any]]
    places: Sequence[Sequence[int]]
    total: float

    @classmethod
    def of(
        cls, rows: Sequence[Mapping[str, Any]], steps: int, batch_size: int, seed: int
    ) -> Batches:
        """`steps` batches of `batch_size` rows each, in the order of `batch_order`."""
        order = batch_order([len(row["input_ids"]) for row in rows], steps, batch_size, seed)
        places = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        mean_weight = float(np.mean([np.sum(row["weights"][1:]) for row in rows]))
        return cls(rows, places, mean_weight * batch_size)

    def among(self, other: Batches, seed: int) -> Batches:
        """The steps of both in random order, those of each in their own; `total` is this one's.

        For an `other` whose loss needs none.
        """
        moved = [[place + len(self.rows) for place in batch] for batch in other.places]
        sources = [iter(self.places), iter(moved)]
        turns = np.repeat([0, 1], [len(self.places), len(moved)])
        order = np.random.default_rng(seed).permutation(turns)
        places = [next(sources[turn]) for turn in order]
        return Batches([*self.rows, *other.rows], places, self.total)

    @property
    def usual_length(self) -> float:
        """How long a token's row is on average."""
        lengths = [len(row["input_ids"]) for row in self.rows]
        return float(np.square(lengths).sum() / np.sum(lengths))


def batch_order(lengths: Sequence[int], steps: int, batch_size: int, seed: int) -> list[int]:
    """Places of the rows to train on, `steps` x `batch_size` of them, epoch after epoch shuffled.

    A batch holds rows of like length, to pad little; the batches themselves come in random order,
    since long runs of only short or only long rows pull a model to and fro. The few rows that are
    left at the end of an epoch share a batch with the first of the next.
    """
    generator = np.random.default_rng(seed)
    wanted = steps * batch_size
    order: list[int] = []
    while len(order) < wanted:
        epoch = generator.permutation(len(lengths)).tolist()
        gap = -len(order) % batch_size
        order += epoch[:gap]
        order += _batched(epoch[gap:], lengths, batch_size, generator)
    return order[:wanted]


def _batched(
    places: list[int], lengths: Sequence[int], batch_size: int, generator: np.random.Generator
) -> list[int]:
    """The places in batches of like length, in random order; what fills no batch comes last."""
    pool = POOL * batch_size
    whole = len(places) - len(places) % batch_size
    batches: list[list[int]] = []
    for start in range(0, whole, pool):
        by_length = sorted(places[start : min(start + pool, whole)], key=lengths.__getitem__)
        batches += [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    shuffled = [batches[i] for i in generator.permutation(len(batches))]
    return [place for batch in shuffled for place in batch] + places[whole:]


__all__ = ["Batches", "batch_order"]
