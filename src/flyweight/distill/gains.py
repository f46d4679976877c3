"""By how much trainings on other data end better or worse, with all that is uncertain in it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats

from flyweight.tasks.statistics import paired_ratio

TINY = np.finfo(float).tiny  # a limit of 0 where one group shows nothing


def changes(
    alone: np.ndarray,
    others: Sequence[np.ndarray],
    groups: Sequence[Hashable],
    confidence: float = 0.95,
) -> list[tuple[float, float, float]]:
    """(change, low, high) of each other's summed loss against `alone`, relative: -0.1 is 10 % less.

    All are losses [seeds, items], 2 seeds at least; the same seeds and items stand at the same
    places. All intervals together hold with `confidence` (Bonferroni). Two things are uncertain:
    the items, by groups (`paired_ratio` on the means over seeds), and the training, by Student's t
    on how the log ratio differs from seed to seed, pooled over the others since few seeds tell
    little; the half-widths of both, as log ratios, are added in quadrature.
    """
    seeds = len(alone)
    ratios = np.log([other.sum(1) / alone.sum(1) for other in others])  # [others, seeds]
    pooled = float(ratios.var(axis=1, ddof=1).mean())
    tail = (1 - confidence) / 2 / len(others)
    width = float(stats.t.ppf(1 - tail, len(others) * (seeds - 1))) * math.sqrt(pooled / seeds)
    found = []
    for other in others:
        ratio = paired_ratio(other.mean(0), alone.mean(0), groups, 1 - tail)
        logs = np.log(np.maximum([ratio.low, ratio.estimate, ratio.high], TINY))
        low = logs[1] - math.hypot(logs[1] - logs[0], width)
        high = logs[1] + math.hypot(logs[2] - logs[1], width)
        found.append((ratio.estimate - 1, float(np.expm1(low)), float(np.expm1(high))))
    return found


__all__ = ["changes"]
