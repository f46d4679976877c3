"""Where a recovery curve is heading: the share of the teacher's score at the last step.

The error 1 - share falls about as a power of the steps, so its logarithm is a line in log steps. A
Bayesian regression with a prior on the slope says where the line ends and how sure that is; early
points count for less, since the line bends. The priors are those of the first jobs (LOG.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

# Of log error against log steps: mean and standard deviation. Answers are right or wrong, and their
# errors vanish; bits of likelihood come down to a floor.
ANSWERS, BITS = (-1.0, 0.5), (-0.25, 0.2)
NOISE = 0.2  # of a log error, whatever the sample
DRIFT = 0.5  # more of it for each e-fold of steps between a point and the end
BEND = 0.3  # how far the line may be off as a whole, for each e-fold that it is drawn on


@dataclass(frozen=True)
class Forecast:
    """The likely share of the teacher's score after the last step, `low` to `high` for 90 %."""

    mean_log_error: float
    sd: float
    least: float = 1e-4  # the smallest error that the readings can tell from none

    @property
    def share(self) -> float:
        return _share(self.mean_log_error)

    @property
    def low(self) -> float:
        return _share(self.mean_log_error + 1.645 * self.sd)

    @property
    def high(self) -> float:
        return _share(self.mean_log_error - 1.645 * self.sd)

    def chance(self, target: float) -> float:
        """The chance that the share reaches `target` (at 1 or above: as if it were just below)."""
        error = math.log(max(self.least, 1 - target))
        return float(stats.norm.cdf((error - self.mean_log_error) / self.sd))


def _share(log_error: float) -> float:
    """None is below 0, wherever the line points that rises."""
    return 1 - math.exp(min(0.0, log_error))


def forecast(
    steps: Sequence[int],
    shares: Sequence[float],
    full_steps: int,
    sample: int,
    slope: tuple[float, float] = ANSWERS,
) -> Forecast:
    """What shares read after `steps`, on `sample` items each, say about step `full_steps`.

    Needs one point; with none the prior alone speaks: anything may come.
    """
    least = 0.5 / sample
    read = np.nan_to_num(np.asarray(shares, dtype=float), nan=0.0)  # a model that diverged
    errors = np.clip(1 - read, least, 1.0)
    x = np.log(np.asarray(steps, dtype=float) / full_steps)  # 0 at the end: the intercept is there
    if len(x) == 0:
        return Forecast(math.log(0.3), 2.0, least)
    # a share of correct answers: its log error has the variance (1 - e) / (n e)
    variance = (1 - errors) / (sample * errors) + NOISE**2 + (DRIFT * x) ** 2
    weights = 1 / variance
    design = np.stack([np.ones_like(x), x], axis=1)
    precision = design.T @ (design * weights[:, None])
    precision[1, 1] += 1 / slope[1] ** 2
    right = design.T @ (weights * np.log(errors))
    right[1] += slope[0] / slope[1] ** 2
    covariance = np.linalg.inv(precision)
    end = covariance @ right
    spread = float(covariance[0, 0]) + NOISE**2 + (BEND * float(x.max())) ** 2
    return Forecast(float(end[0]), math.sqrt(spread), least)
