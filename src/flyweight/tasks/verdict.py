"""The verdict: passes, falls short or cannot tell, and what stands beside it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from flyweight.errors import OptionError
from flyweight.tasks import limits
from flyweight.tasks.limits import Pairs
from flyweight.tasks.statistics import Ratio, pair, paired_ratio

Word = Literal["passes", "falls short", "cannot tell"]
LEAST_DOUBT = 1e-15  # of a limit
_LIKELY = 0.8  # the chance with which `more_groups_needed` more groups would tell
_TOO_MANY = 1_000  # times as many groups as there are: nobody collects them


@dataclass(frozen=True)
class Verdict:
    """What the limits say about the bar, and what they were.

    `more_groups`: how many more groups would likely tell; 0 when the word is said already, None
    when no reachable number would (the estimate lies practically on the bar).
    """

    word: Word
    bar: float
    estimate: float
    low: float
    high: float
    confidence: float
    n: int
    groups: int
    disagreements: int
    more_groups: int | None
    binds: str = ""  # of several tasks, the one that decides


@dataclass(frozen=True)
class SliceResult:
    """One slice: its items, both means, their ratio, and the corrected p of `slice_regressions`.

    `ratio` is None where the teacher scores 0; `p` is None where nothing can be tested (that, or
    items of one group only).
    """

    name: str
    n: int
    groups: int
    student: float
    teacher: float
    ratio: float | None
    p: float | None


def judge(ratio: Ratio, bar: float) -> Verdict:
    """The word for limits and a bar: low >= bar passes, high < bar falls short, else cannot tell.

    Takes what `paired_ratio` or `absolute_limits` gives. Raises OptionError unless bar > 0.
    """
    if not (math.isfinite(bar) and bar > 0):
        raise OptionError(f"the bar is {bar}: it must be a number above 0")
    word: Word = "cannot tell"
    if ratio.low >= bar:
        word = "passes"
    elif ratio.high < bar:
        word = "falls short"
    return Verdict(
        word=word,
        bar=bar,
        estimate=ratio.estimate,
        low=ratio.low,
        high=ratio.high,
        confidence=ratio.confidence,
        n=ratio.n,
        groups=ratio.groups,
        disagreements=ratio.disagreements,
        more_groups=0 if word != "cannot tell" else _more_groups(ratio, bar),
        binds=ratio.binds,
    )


def more_groups_needed(
    student: ArrayLike,
    teacher: ArrayLike,
    groups: Sequence[Hashable],
    bar: float,
    confidence: float = 0.95,
) -> int | None:
    """How many more groups like these would tell in about four cases of five if the estimate holds.

    Limits close in with the root of the number of groups (with the number itself where nothing
    differs). 0 when they tell already, None when the estimate lies practically on the bar.
    Raises as `paired_ratio` and `judge` do.
    """
    return judge(paired_ratio(student, teacher, groups, confidence), bar).more_groups


def slice_regressions(
    student: ArrayLike,
    teacher: ArrayLike,
    groups: Sequence[Hashable],
    slices: Sequence[Sequence[str]],
    bar: float = 0.95,
    weights: ArrayLike | None = None,
) -> list[SliceResult]:
    """For every slice, whether the student falls below the bar there; sorted by name.

    `slices` holds the names of the slices of each item [n]. The null hypothesis of each slice is
    "here the student's mean is at least `bar` times the teacher's"; a small p speaks for "here it
    is worse than that". One-sided, by the tests that give `paired_ratio` its limits (Student's t
    in place of the bootstrap), corrected by Holm's method over all slices that can be tested: the
    chance of any false alarm is at most the level that p is compared with. For an absolute bar
    give ones as the teacher. This never changes the verdict's word.
    `weights` [n] are what the scores are sums over (such as an item's bytes, where its score is its
    bits): a mean is then a sum of scores over a sum of weights. Ratio and p do not depend on them.
    Raises OptionError as `paired_ratio` does.
    """
    pairs = pair(student, teacher, groups)
    if len(slices) != pairs.n:
        raise OptionError(
            f"{len(slices)} lists of slices for {pairs.n} items: give one list per item"
        )
    members: dict[str, list[int]] = {}
    for index, names in enumerate(slices):
        for name in dict.fromkeys(names):
            members.setdefault(name, []).append(index)
    mass = np.ones(pairs.n) if weights is None else np.asarray(weights, dtype=float)
    raw = {name: _part(pairs, np.array(members[name])) for name in sorted(members)}
    total = {name: float(mass[members[name]].sum()) for name in raw}
    ps = {name: _p_below(part, bar) for name, part in raw.items()}
    corrected = iter(holm([p for p in ps.values() if p is not None]))
    return [
        SliceResult(
            name=name,
            n=part.n,
            groups=part.groups,
            student=float(part.student.sum()) / total[name],
            teacher=float(part.teacher.sum()) / total[name],
            ratio=part.ratio if part.teacher.any() else None,
            p=None if ps[name] is None else next(corrected),
        )
        for name, part in raw.items()
    ]


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's corrected p values, in the order given (Holm 1979, Scand. J. Statist. 6:65)."""
    order = np.argsort(ps, kind="stable")
    steps = np.asarray(ps, dtype=float)[order] * np.arange(len(ps), 0, -1)
    corrected = np.empty(len(ps))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected.tolist()


def confidence_of_opening(k: int) -> float:
    """The confidence of each limit when the same test split is opened for the k-th time, k >= 1.

    Every model or bar that is tried on one split is one more chance to pass by luck. The k-th
    opening may be wrong in 0.05 / 2**(k - 1) of cases: the first has the plain 95 % limits, the
    second 97.5 %, the third 98.75 %; all openings together, however many, stay below 10 %. From
    the 47th on it stays at LEAST_DOUBT: a float can hardly say less.
    Raises OptionError for k < 1.
    """
    if k < 1:
        raise OptionError(f"opening {k} of the test split: count from 1")
    return 1 - max(0.05 * 0.5 ** (k - 1), LEAST_DOUBT)


def _more_groups(ratio: Ratio, bar: float) -> int | None:
    room = abs(ratio.estimate - bar)
    width = ratio.estimate - ratio.low if ratio.estimate >= bar else ratio.high - ratio.estimate
    if room == 0 or ratio.groups < 2 or not math.isfinite(width):
        return None
    if ratio.disagreements == 0:  # the lower limit is then groups / (groups + z^2)
        times = width / room if ratio.estimate < bar else width / ratio.low * bar / room
    else:
        z = float(stats.norm.ppf(ratio.confidence))
        times = (width / room * (1 + float(stats.norm.ppf(_LIKELY)) / z)) ** 2
    return None if times > _TOO_MANY else max(1, math.ceil(ratio.groups * (times - 1)))


def _part(pairs: Pairs, index: np.ndarray) -> Pairs:
    found, codes = np.unique(pairs.codes[index], return_inverse=True)
    return Pairs(pairs.student[index], pairs.teacher[index], codes, len(found))


def _p_below(part: Pairs, bar: float) -> float | None:
    """One-sided p of "the ratio is at least the bar", None if this slice cannot say."""
    if part.groups < 2 or not part.teacher.any():
        return None
    if part.binary:
        score = limits.matched_score(part, bar, limits.design_effect(part))
    else:
        variance, lump = limits.ratio_spread(part)
        gap = part.ratio - bar
        spread = math.sqrt(variance + abs(gap) * lump)
        score = gap / spread if spread > 0 else math.copysign(math.inf, gap) if gap else 0.0
    if part.binary and not part.clustered:
        return float(stats.norm.cdf(score))
    return float(stats.t.cdf(score, part.groups - 1))
