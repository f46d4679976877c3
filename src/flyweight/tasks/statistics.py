"""How well a model does, and how sure that is: means and ratios of scores by group."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flyweight.errors import OptionError, TaskError
from flyweight.tasks import limits
from flyweight.tasks.limits import Pairs


@dataclass(frozen=True)
class Interval:
    """A mean score with a two-sided confidence interval; `n` items in `groups` groups."""

    mean: float
    low: float
    high: float
    n: int
    groups: int


@dataclass(frozen=True)
class Ratio:
    """An estimate and two one-sided limits, each at `confidence` by itself.

    A ratio of means (`paired_ratio`) or a mean (`absolute_limits`: the ratio to a perfect score).
    `disagreements` counts the items on which the two scores differ. `high` may be infinite.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    n: int
    groups: int
    disagreements: int
    binds: str = ""  # of several tasks, the one that this is of: it decides


def mean_interval(
    values: ArrayLike, groups: Sequence[Hashable], confidence: float = 0.95
) -> Interval:
    """The mean of `values` [n] with a two-sided interval; items cluster in `groups` [n].

    0/1 values: Wilson's interval on the effective number of items, honest at 0 and at 1; other
    values: cluster bootstrap-t. Raises OptionError for lengths that differ or bad scores.
    """
    found = absolute_limits(values, groups, (1 + _probability(confidence)) / 2)
    return Interval(found.estimate, found.low, found.high, found.n, found.groups)


def absolute_limits(
    student: ArrayLike, groups: Sequence[Hashable], confidence: float = 0.95
) -> Ratio:
    """The student's mean score [n] with one-sided limits, for `--bar-absolute`.

    The same kind of object as `paired_ratio` gives, with a perfect score of 1 in the teacher's
    place. Raises OptionError as `mean_interval` does.
    """
    values = np.asarray(student, dtype=float)
    pairs = pair(values, np.ones_like(values), groups)
    return _limits(pairs, _probability(confidence), absolute=True)


def paired_ratio(
    student: ArrayLike,
    teacher: ArrayLike,
    groups: Sequence[Hashable],
    confidence: float = 0.95,
) -> Ratio:
    """mean(student) / mean(teacher) over the same items [n], each limit one-sided.

    Means are >= 0, more is better: for lower-is-better scores swap the two. Whole groups are the
    independent units. Scores of 0 and 1 only: the matched-pairs score test on an effective number
    of items, which leaves doubt even when nothing differs; other scores: cluster bootstrap-t
    (4,000 resamples, fixed seed). With one single group the limits are 0 and infinity.
    Raises TaskError when the teacher's mean is 0, OptionError for lengths that differ, bad scores
    or a confidence outside (0.5, 1). Checked in benchmarks/verdict_coverage.py.
    """
    pairs = pair(student, teacher, groups)
    if not pairs.teacher.any():
        raise TaskError(
            "the teacher scores 0 on this split: no share of nothing can be kept; check the answers"
            " and --score, or set --bar-absolute"
        )
    return _limits(pairs, _probability(confidence), absolute=False)


def pair(student: ArrayLike, teacher: ArrayLike, groups: Sequence[Hashable]) -> Pairs:
    """Checked scores [n] and group codes [n]; raises OptionError that names the first bad item."""
    scores = [np.asarray(values, dtype=float).ravel() for values in (student, teacher)]
    if not len(scores[0]) == len(scores[1]) == len(groups):
        raise OptionError(
            f"scores and groups differ in length ({len(scores[0])} by the student,"
            f" {len(scores[1])} by the teacher, {len(groups)} groups): give one of each per item"
        )
    if len(groups) == 0:
        raise OptionError("there are no items to judge on: give a split that has some")
    for values in scores:
        bad = ~np.isfinite(values)
        if bad.any():
            at = int(bad.argmax())
            raise OptionError(f"the score of item {at + 1} is {values[at]}: it must be a number")
        if values.mean() < -1e-9:
            raise OptionError("the scores add up to less than 0: a mean score must be >= 0")
    known: dict[Hashable, int] = {}
    codes = np.array([known.setdefault(group, len(known)) for group in groups])
    return Pairs(scores[0], scores[1], codes, len(known))


def _limits(pairs: Pairs, confidence: float, *, absolute: bool) -> Ratio:
    estimate, disagreements = pairs.ratio, int((pairs.student != pairs.teacher).sum())
    if pairs.groups < 2:  # nothing is known about how groups differ
        low, high = 0.0, 1.0 if absolute and pairs.binary else float("inf")
    elif not pairs.binary:
        low, high = limits.ratio_limits(pairs, confidence)
    else:
        z = limits.quantile(pairs, confidence)
        if absolute:
            low, high = limits.wilson(estimate, pairs.n / limits.design_effect(pairs), z)
        else:
            low, high = limits.matched_limits(pairs, z)
    return Ratio(
        estimate=estimate,
        low=min(low, estimate),
        high=max(high, estimate),
        confidence=confidence,
        n=pairs.n,
        groups=pairs.groups,
        disagreements=disagreements,
    )


def _probability(confidence: float) -> float:
    if not 0.5 < confidence < 1:
        raise OptionError(f"confidence is {confidence}: it must lie between 0.5 and 1")
    return float(confidence)
