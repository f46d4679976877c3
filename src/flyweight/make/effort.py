"""How much a search may cost: which sizes it looks at, and how long it trains them."""

from __future__ import annotations

import math
from dataclasses import dataclass

BATCH = 32
LEARNING_RATE = 2e-3  # up to NARROW hidden channels
NARROW = 256
MOST_DOUBLINGS = 4  # of the steps from scratch, in search of the plateau


@dataclass(frozen=True)
class Effort:
    """One setting of `--effort`.

    `levels`: shares of the teacher's parameters; `width`: shapes of each that are trained;
    `rungs`: shares of the steps after which half of them drop out; `patience`: the chance that a
    smaller shape passes below which the search ends. From scratch: learning rates that are tried,
    and whether steps are added until that gains nothing.
    `mend`: whether the weights that a cut leaves are first fitted to say what the teacher's say.
    """

    levels: tuple[float, ...]
    width: int
    rungs: tuple[float, ...]
    patience: float
    epochs: int
    heads: bool  # the grid also cuts query heads within groups
    mend: bool
    scratch_rates: tuple[float, ...]
    scratch_plateau: bool


EFFORTS = {
    "quick": Effort(
        levels=(0.1, 0.2, 0.33),
        width=1,
        rungs=(1 / 8,),
        patience=0.5,
        epochs=8,
        heads=False,
        mend=False,
        scratch_rates=(1.0,),
        scratch_plateau=False,
    ),
    "standard": Effort(
        levels=(0.05, 0.08, 0.13, 0.2, 0.33, 0.6),
        width=2,
        rungs=(1 / 8, 1 / 4, 1 / 2),
        patience=0.3,
        epochs=15,
        heads=True,
        mend=True,
        scratch_rates=(1.0,),
        scratch_plateau=False,
    ),
    "thorough": Effort(
        levels=(0.03, 0.045, 0.07, 0.1, 0.15, 0.23, 0.35, 0.6),
        width=4,
        rungs=(1 / 16, 1 / 8, 1 / 4, 1 / 2),
        patience=0.1,
        epochs=40,
        heads=True,
        mend=True,
        scratch_rates=(0.5, 1.0, 2.0),
        scratch_plateau=True,
    ),
}


def default_steps(rows: int, effort: Effort) -> int:
    """Enough to see every row `epochs` times: at least 100, at most 300 for each epoch."""
    most = 300 * effort.epochs
    return min(most, max(100, math.ceil(rows * effort.epochs / BATCH)))


def learning_rate(hidden: int) -> float:
    """The highest rate for a student of that width: Adam's falls as one over the width.

    What a step changes in the output grows with the channels that are summed (Yang et al. 2022,
    arXiv:2203.03466). The rate for narrow ones is measured; 2.5e-4 follows for a width of 2,048.
    """
    return LEARNING_RATE * min(1.0, NARROW / hidden)
