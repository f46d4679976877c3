"""Means and ratios with limits: known answers, honesty at the edges, invariances, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from flyweight.errors import OptionError, TaskError
from flyweight.tasks import limits
from flyweight.tasks.statistics import Ratio, absolute_limits, mean_interval, pair, paired_ratio

EIGHTS = [f"group {i // 8}" for i in range(1_000)]


@st.composite
def tasks(draw: st.DrawFn, binary: bool | None = None) -> tuple[list, list, list]:
    """Student's and teacher's scores (the teacher right at least once) and groups of 2-40 items."""
    n = draw(st.integers(2, 40))
    if binary is None:
        binary = draw(st.booleans())
    score = st.sampled_from([0.0, 1.0]) if binary else st.floats(0, 4).map(lambda x: round(x, 3))
    student, teacher = (draw(st.lists(score, min_size=n, max_size=n)) for _ in range(2))
    teacher[draw(st.integers(0, n - 1))] = 1.0
    return student, teacher, draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))


def assert_same(one: Ratio, other: Ratio) -> None:
    for name in ("estimate", "low", "high"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("right", [0, 1, 7, 100, 199, 200])
def test_mean_of_independent_items_is_wilsons(right: int) -> None:
    values = np.arange(200) < right
    found = mean_interval(values, range(200), 0.9)
    known = stats.binomtest(right, 200).proportion_ci(0.9, method="wilson")
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-12)
    assert (found.mean, found.n, found.groups) == (right / 200, 200, 200)


@pytest.mark.parametrize(("both", "gained", "lost", "neither"), [(70, 3, 8, 19), (50, 0, 4, 6)])
@pytest.mark.parametrize("bar", [0.8, 0.95, 1.1])
def test_the_score_test_takes_its_variance_where_the_hypothesis_is_most_likely(
    both: int, gained: int, lost: int, neither: int, bar: float
) -> None:
    counts = np.array([both, gained, lost, neither])
    n = counts.sum()
    found = optimize.minimize(
        lambda p: -(counts * np.log(p)).sum(),
        np.full(4, 0.25),
        jac=lambda p: -counts / p,
        bounds=[(1e-9, 1)] * 4,
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1},
            {"type": "eq", "fun": lambda p: p[0] + p[1] - bar * (p[0] + p[2])},
        ],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    spread = math.sqrt(bar * (found.x[1] + found.x[2]) / n)
    wanted = (both + gained - bar * (both + lost)) / n / spread
    student = np.repeat([1.0, 1.0, 0.0, 0.0], counts)
    teacher = np.repeat([1.0, 0.0, 1.0, 0.0], counts)
    found = limits.matched_score(pair(student, teacher, range(n)), bar, 1.0)
    assert found == pytest.approx(wanted, rel=1e-3)


def test_against_a_perfect_teacher_the_lower_limit_is_wilsons() -> None:
    student = np.arange(300) >= 9
    found = paired_ratio(student, np.ones(300), range(300))
    known = stats.binomtest(291, 300).proportion_ci(0.9, method="wilson")
    assert found.low == pytest.approx(known.low, abs=1e-9)


def test_no_disagreement_leaves_the_doubt_of_the_number_of_groups() -> None:
    right = np.ones(1_000)
    clustered = paired_ratio(right, right, EIGHTS)
    z = float(stats.t.ppf(0.95, 124))
    assert clustered.low == pytest.approx(125 / (125 + z * z), abs=1e-6)  # 0.9785
    assert clustered.disagreements == 0
    assert clustered.estimate == 1
    assert clustered.high > 1
    alone = paired_ratio(right, right, range(1_000))
    assert 0.997 < alone.low < 0.998  # the rule of three says 0.997
    assert mean_interval(right, EIGHTS).low == pytest.approx(0.97, abs=0.005)
    assert mean_interval(right * 0, EIGHTS).high == pytest.approx(0.03, abs=0.005)


def test_partial_scores_that_never_differ_leave_the_same_doubt() -> None:
    scores = np.resize([0.25, 0.5, 1.0], 1_000)
    found = paired_ratio(scores, scores, EIGHTS)
    assert 0.97 < found.low < 0.985
    assert 1.015 < found.high < 1.03


def test_one_lost_group_weighs_more_than_as_many_scattered_items() -> None:
    together, scattered, right = np.ones(1_000), np.ones(1_000), np.ones(1_000)
    together[:8] = scattered[::125] = 0
    one, other = (paired_ratio(s, right, EIGHTS) for s in (together, scattered))
    assert one.estimate == other.estimate == 0.992
    assert one.disagreements == other.disagreements == 8
    assert one.low < other.low - 0.005


def test_one_group_says_nothing() -> None:
    found = paired_ratio([1, 1, 0], [1, 1, 1], "aaa")
    assert (found.low, found.high, found.groups) == (0, math.inf, 1)
    assert absolute_limits([1, 1, 0], "aaa").high == 1


def test_skewed_scores_agree_with_student_t_of_group_sums_when_groups_are_many() -> None:
    rng = np.random.default_rng(3)
    teacher = rng.gamma(2, 1, 2_000)
    student = teacher * rng.lognormal(0, 0.2, 2_000)
    groups = np.repeat(np.arange(400), 5)
    found = paired_ratio(student, teacher, groups.tolist())
    s, t = (np.bincount(groups, weights=x) for x in (student, teacher))
    rest = s - found.estimate * t
    half = stats.t.ppf(0.95, 399) * rest.std(ddof=1) * math.sqrt(400) / t.sum()
    assert found.estimate - found.low == pytest.approx(half, rel=0.1)
    assert found.high - found.estimate == pytest.approx(half, rel=0.1)


@settings(max_examples=60, deadline=None)
@given(task=tasks(), seed=st.integers(0, 99))
@example(  # resamples of one group alone have no spread, only rounding
    task=([0.0] * 6 + [1.0] * 2, [1.0, 0, 0, 0, 0, 3.062, 0.688, 0.0], [0] * 7 + [1]), seed=0
)
def test_neither_order_nor_names_of_groups_matter(task: tuple, seed: int) -> None:
    student, teacher, groups = (np.array(part) for part in task)
    order = np.random.default_rng(seed).permutation(len(groups))
    names = [f"name {97 * int(group) % 10}" for group in groups[order]]
    assert_same(
        paired_ratio(student, teacher, groups.tolist()),
        paired_ratio(student[order], teacher[order], names),
    )


@settings(max_examples=60, deadline=None)
@given(task=tasks(), confidence=st.floats(0.6, 0.98))
def test_limits_enclose_the_estimate_and_widen_with_confidence(
    task: tuple, confidence: float
) -> None:
    narrow = paired_ratio(*task, confidence=confidence)
    wide = paired_ratio(*task, confidence=confidence + 0.015)
    assert 0 <= wide.low <= narrow.low <= narrow.estimate <= narrow.high <= wide.high
    mean = mean_interval(task[0], task[2], confidence)
    assert 0 <= mean.low <= mean.mean <= mean.high


@settings(max_examples=40, deadline=None)
@given(task=tasks(binary=False), unit=st.sampled_from([0.5, 2.0, 8.0]))
def test_the_unit_of_the_scores_does_not_matter(task: tuple, unit: float) -> None:
    student, teacher, groups = task
    teacher[0] += 0.25  # never 0/1 only, in any unit
    scaled = (np.array(student) * unit, np.array(teacher) * unit)
    if not pair(*scaled, groups).binary:
        assert_same(paired_ratio(student, teacher, groups), paired_ratio(*scaled, groups))


@settings(max_examples=40, deadline=None)
@given(task=tasks(binary=True))
def test_losing_one_more_item_never_raises_the_estimate(task: tuple) -> None:
    student, teacher, groups = task
    before = paired_ratio(student, teacher, groups).estimate
    if 1.0 in student:
        student[student.index(1.0)] = 0.0
        assert paired_ratio(student, teacher, groups).estimate < before


def wrong_passes(partial: bool, tasks: int) -> int:
    """How often the lower limit reaches the true ratio, 0.95; groups of 6 share their fate."""
    rng, wrong = np.random.default_rng(11), 0
    codes = np.repeat(np.arange(60), 6)
    for _ in range(tasks):
        own, of_group = rng.random(360), rng.random(60)[codes]
        fate = np.where(rng.random(360) < 0.5, of_group, own)  # correlation 0.25
        teacher = np.where(fate < 0.9, 1.0, 0.0)
        lost = rng.random(360) if partial else np.zeros(360)  # half the score is kept, or none
        student = np.where(fate < (0.09 if partial else 0.045), lost, teacher)
        wrong += paired_ratio(student, teacher, codes.tolist()).low >= 0.95
    return wrong


@pytest.mark.parametrize(("partial", "tasks", "most"), [(False, 400, 31), (True, 150, 15)])
def test_the_lower_limit_is_wrong_at_most_as_often_as_it_says(
    partial: bool, tasks: int, most: int
) -> None:
    # A true 5 % gives more than `most` wrong ones in fewer than one case of 100. Limits that take
    # items for independent are wrong more than twice as often as they say (45 in 400).
    assert wrong_passes(partial, tasks) <= most


@pytest.mark.parametrize(
    ("student", "teacher", "groups", "message"),
    [
        ([1], [1, 1], ["a", "b"], "differ in length"),
        ([1, 1], [1, 1], ["a"], "differ in length"),
        ([], [], [], "no items"),
        ([1, math.nan], [1, 1], ["a", "b"], "item 2 is nan"),
        ([1, -2], [1, 1], ["a", "b"], "less than 0"),
    ],
)
def test_bad_scores_are_named(student: list, teacher: list, groups: list, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        paired_ratio(student, teacher, groups)


def test_a_teacher_that_scores_nothing_and_a_strange_confidence_are_refused() -> None:
    with pytest.raises(TaskError, match="the teacher scores 0 on this split"):
        paired_ratio([1, 0], [0, 0], "ab")
    for confidence in (0.5, 1.0, 95):
        with pytest.raises(OptionError, match="confidence"):
            paired_ratio([1, 0], [1, 1], "ab", confidence)
        with pytest.raises(OptionError, match="confidence"):
            mean_interval([1, 0], "ab", confidence)
