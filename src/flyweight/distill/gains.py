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
    on how the log ratio differs from seed to seed; the half-widths of both, as log ratios, are
    added in quadrature. Few seeds tell little, so that variances are pooled over the others, but
    none counts for less than its own. They share the noise of `alone`: of degrees of freedom
    pooling gives half as many as if they did not.
    """
    seeds = len(alone)
    ratios = np.log([other.sum(1) / alone.sum(1) for other in others])  # [others, seeds]
    own = ratios.var(axis=1, ddof=1)
    tail = (1 - confidence) / 2 / len(others)
    freedom = max(seeds - 1, len(others) * (seeds - 1) / 2)
    widths = float(stats.t.ppf(1 - tail, freedom)) * np.sqrt(np.maximum(own, own.mean()) / seeds)
    found = []
    for other, width in zip(others, widths, strict=True):
        ratio = paired_ratio(other.mean(0), alone.mean(0), groups, 1 - tail)
        logs = np.log(np.maximum([ratio.low, ratio.estimate, ratio.high], TINY))
        low = logs[1] - math.hypot(logs[1] - logs[0], width)
        high = logs[1] + math.hypot(logs[2] - logs[1], width)
        found.append((ratio.estimate - 1, float(np.expm1(low)), float(np.expm1(high))))
    return found


__all__ = ["changes"]
