"""One stream of training rows from several sources, each with its share of the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flyweight.distill.packing import PackedRow, side_by_side, size
from flyweight.distill.trainer import Row

WINDOW = 64  # rows that are packed at a time: whatever is drawn in that time shares rows


@dataclass(frozen=True)
class Source:
    """Rows, and the share of the tokens that are to come from them."""

    rows: Sequence[Row]
    share: float


def mixed(sources: Sequence[Source], length: int, count: int, seed: int) -> list[Row]:
    """`count` packed rows of at most `length` tokens, as the seed alone decides.

    Each source is gone through again and again, shuffled anew; at any time its share of the tokens
    is off by no more than its last row. What was drawn in a while is packed together, and the
    emptiest row of it is filled with what comes next.
    """
    generator = np.random.default_rng(seed)
    stream = _drawn([source for source in sources if source.share > 0], generator)
    found: list[Row] = []
    left: list[Row] = []
    while len(found) < count:
        wanted = min(WINDOW, count - len(found)) * length
        held = sum(map(size, left))
        while held < wanted:
            left.append(next(stream))
            held += size(left[-1])
        rows = side_by_side(left, length)
        emptiest = min(range(len(rows)), key=lambda place: size(rows[place]))
        left = list(rows.pop(emptiest).parts) if len(rows) > 1 else []
        found += [rows[i] for i in generator.permutation(len(rows))]
    return found[:count]


def one_by_one(sources: Sequence[Source], count: int, seed: int) -> list[Row]:
    """The same with a row for each document, for models that cannot keep documents apart."""
    generator = np.random.default_rng(seed)
    stream = _drawn([source for source in sources if source.share > 0], generator)
    return [PackedRow([next(stream)]) for _ in range(count)]


def _drawn(sources: Sequence[Source], generator: np.random.Generator) -> Iterator[Row]:
    """Rows of the sources, each time from that which is the farthest behind its share."""
    streams = [_shuffled(source.rows, generator) for source in sources]
    given = np.zeros(len(sources))
    shares = np.array([source.share for source in sources])
    while True:
        behind = int(np.argmin(given / shares))
        row = next(streams[behind])
        given[behind] += size(row)
        yield row


def _shuffled(rows: Sequence[Row], generator: np.random.Generator) -> Iterator[Row]:
    while True:
        for place in generator.permutation(len(rows)):
            yield rows[place]


__all__ = ["Source", "mixed", "one_by_one"]
