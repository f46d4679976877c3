"""The word, what it would take to say one, slices under Holm's correction, repeated openings."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from flyweight.errors import OptionError
from flyweight.tasks.statistics import Ratio, absolute_limits, paired_ratio
from flyweight.tasks.verdict import (
    confidence_of_opening,
    holm,
    judge,
    more_groups_needed,
    slice_regressions,
)


def ratio(estimate: float, low: float, high: float) -> Ratio:
    return Ratio(estimate, low, high, 0.95, 1_000, 125, 50)


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        ((0.97, 0.95, 0.99), "passes"),  # the lower limit on the bar is enough
        ((0.97, 0.94, 0.99), "cannot tell"),
        ((0.93, 0.90, 0.95), "cannot tell"),  # the upper limit on the bar is not
        ((0.93, 0.90, 0.949), "falls short"),
    ],
)
def test_the_word_follows_from_the_limits(limits: tuple[float, float, float], word: str) -> None:
    verdict = judge(ratio(*limits), 0.95)
    assert verdict.word == word
    assert (verdict.estimate, verdict.low, verdict.high) == limits
    assert (verdict.more_groups == 0) == (word != "cannot tell")


def test_the_absolute_bar_is_judged_alike() -> None:
    student = np.arange(400) % 20 > 0  # 95 % right
    found = absolute_limits(student, range(400))
    assert judge(found, 0.9).word == "passes"
    assert judge(found, 0.95).word == "cannot tell"
    assert judge(found, 0.99).word == "falls short"


@pytest.mark.parametrize("bar", [0.0, -1.0, math.nan, math.inf])
def test_a_bar_that_is_none_is_refused(bar: float) -> None:
    with pytest.raises(OptionError, match="the bar is"):
        judge(ratio(0.9, 0.8, 1.0), bar)


def test_more_groups_tell_in_four_cases_of_five() -> None:
    student = np.ones(400)
    student[:13] = 0
    more = more_groups_needed(student, np.ones(400), range(400), 0.95)
    assert more is not None
    n = 400 + more
    rng = np.random.default_rng(5)
    words = [
        judge(paired_ratio(rng.random(n) < student.mean(), np.ones(n), range(n)), 0.95).word
        for _ in range(200)
    ]
    assert 0.7 < words.count("passes") / 200 < 0.95


def test_more_groups_with_nothing_lost_are_just_enough() -> None:
    right = np.ones(30)
    more = more_groups_needed(right, right, range(30), 0.95)
    assert more is not None
    for extra, word in ((more + 1, "passes"), (more - 2, "cannot tell")):
        n = 30 + extra
        assert judge(paired_ratio(np.ones(n), np.ones(n), range(n)), 0.95).word == word


def test_no_number_of_groups_tells_an_estimate_on_the_bar() -> None:
    student = np.arange(400) % 20 > 0
    assert more_groups_needed(student, np.ones(400), range(400), 0.95) is None
    assert more_groups_needed(np.ones(400), np.ones(400), range(400), 0.95) == 0
    assert more_groups_needed([1, 0], [1, 1], "aa", 0.95) is None  # one group: no width is known


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=6))
def test_holm_is_bonferroni_over_every_set_of_hypotheses(ps: list[float]) -> None:
    # The closed test: a hypothesis falls when every set that holds it falls by Bonferroni.
    index = range(len(ps))
    sets = [group for size in index for group in combinations(index, size + 1)]
    closed = [
        min(1.0, max(len(group) * min(ps[j] for j in group) for group in sets if i in group))
        for i in index
    ]
    assert holm(ps) == pytest.approx(closed)


def test_the_slice_that_is_worse_is_found_and_the_tiny_ones_are_shown() -> None:
    n = 400
    student, teacher = np.ones(n), np.ones(n)
    slices: list[list[str]] = [["even"] if i % 2 == 0 else ["odd", "odd"] for i in range(n)]
    student[1:32:2] = 0  # 16 of the 200 odd ones
    slices[0] = ["even", "single"]
    slices[2] = ["even", "hopeless"]
    teacher[2] = student[2] = 0
    found = {each.name: each for each in slice_regressions(student, teacher, range(n), slices)}
    assert list(found) == ["even", "hopeless", "odd", "single"]
    even, odd = found["even"], found["odd"]
    assert (odd.n, odd.student, odd.teacher, odd.ratio) == (200, 0.92, 1.0, 0.92)
    # Wilson's score test of 184 in 200 against 0.95, doubled by Holm (two slices can be tested)
    z = (0.92 - 0.95) / math.sqrt(0.95 * 0.05 / 200)
    assert odd.p == pytest.approx(2 * float(stats.norm.cdf(z)), rel=1e-6)
    assert even.p is not None
    assert even.p > 0.99
    assert found["single"].p is None
    assert (found["hopeless"].ratio, found["hopeless"].p) == (None, None)


def test_slices_of_partial_scores_are_tested_too() -> None:
    rng = np.random.default_rng(2)
    teacher = rng.uniform(0.5, 1, 300)
    worse = np.arange(300) < 150
    student = teacher * np.where(worse, 0.85, 1.0) * rng.uniform(0.95, 1.05, 300)
    names = [["worse" if each else "same"] for each in worse]
    same, bad = slice_regressions(student, teacher, [i // 3 for i in range(300)], names)
    assert bad.p is not None
    assert bad.p < 1e-6
    assert same.p is not None
    assert same.p > 0.5


def test_weights_make_a_mean_a_ratio_of_sums_and_change_nothing_else() -> None:
    rng = np.random.default_rng(6)
    size = rng.integers(1, 50, 60)
    student, teacher = (size * rng.uniform(1, 2, 60) for _ in range(2))
    names = [["a"] if i % 3 else ["b"] for i in range(60)]
    groups = [i // 2 for i in range(60)]
    plain = slice_regressions(student, teacher, groups, names)
    weighed = slice_regressions(student, teacher, groups, names, weights=size)
    for part, other in zip(weighed, plain, strict=True):
        inside = np.array([part.name in name for name in names])
        assert part.student == pytest.approx(student[inside].sum() / size[inside].sum())
        assert part.teacher == pytest.approx(teacher[inside].sum() / size[inside].sum())
        assert (part.name, part.n, part.ratio, part.p) == (
            other.name,
            other.n,
            other.ratio,
            other.p,
        )


def test_slices_must_fit_the_items() -> None:
    with pytest.raises(OptionError, match="1 lists of slices for 2 items"):
        slice_regressions([1, 0], [1, 1], "ab", [["x"]])


def test_a_correct_student_seldom_raises_any_alarm() -> None:
    rng, alarms = np.random.default_rng(4), 0
    slices = [[f"slice {i % 5}"] for i in range(300)]
    for _ in range(200):  # every slice exactly on the bar: the hardest case of the hypothesis
        student = rng.random(300) < 0.95
        results = slice_regressions(student, np.ones(300), range(300), slices)
        alarms += any(each.p is not None and each.p < 0.05 for each in results)
    assert alarms <= 22  # 200 x 5 % = 10; a true 5 % gives more in one case of 3,000


def test_openings_spend_less_than_a_tenth_together() -> None:
    assert confidence_of_opening(1) == 0.95
    assert confidence_of_opening(3) == pytest.approx(0.9875)
    assert 0.5 < confidence_of_opening(10_000) < 1
    assert sum(1 - confidence_of_opening(k) for k in range(1, 40)) < 0.1
    with pytest.raises(OptionError, match="count from 1"):
        confidence_of_opening(0)
