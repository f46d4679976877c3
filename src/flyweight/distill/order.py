"""The order in which rows are trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

POOL = 8  # batches among which rows are sorted by length


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


__all__ = ["batch_order"]
