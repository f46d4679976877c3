"""The search's decisions, on contenders whose chances are given."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from flyweight.anatomy import Shape
from flyweight.make import search
from flyweight.make.bench import Result
from flyweight.make.budget import Budgets
from flyweight.make.curve import Forecast
from flyweight.make.form import Cost
from flyweight.make.options import check_options
from flyweight.make.rank import RankedShape
from flyweight.make.search import likely_answers, needed_share, next_to_finish
from flyweight.make.students import Candidate, Contender, of_use
from flyweight.tasks.statistics import paired_ratio


def contender(size: int, *, measured: bool = False, excluded: str = "") -> Contender:
    shape = Shape(size, 64, 64, 2, 1, 32, 100)
    made = Contender(RankedShape(shape, size * 1000, 0.1, 1.0), 100, excluded=excluded)
    made.candidates = [object()] if measured else []  # type: ignore[list-item]
    return made


def test_likely_answers_is_the_chance_of_being_the_smallest_that_passes() -> None:
    """Against all outcomes counted one by one."""
    chances = [0.1, 0.5, 0.3, 0.9]
    expected = np.zeros(len(chances))
    for outcome in product((True, False), repeat=len(chances)):
        weight = np.prod([c if ok else 1 - c for c, ok in zip(chances, outcome, strict=True)])
        if any(outcome):
            expected[outcome.index(True)] += weight
    assert likely_answers(chances) == pytest.approx(expected.tolist())


@pytest.mark.parametrize(("size", "off"), [(1, 0.01), (3, 0.01), (10, 0.01), (100, 0.03)])
@pytest.mark.parametrize("bar", [0.7, 0.8, 0.95])
def test_the_share_that_is_needed_is_the_one_whose_limit_is_the_bar(
    size: int, off: float, bar: float
) -> None:
    """Against the limits themselves: a student that loses single items, the teacher none."""
    items = 1200
    groups = [str(place // size) for place in range(items)]
    dev = SimpleNamespace(groups=groups, by_task={"": list(range(items))})
    job: Any = SimpleNamespace(
        options=SimpleNamespace(bar=bar),
        scorer=SimpleNamespace(needs_generation=True),
        data=SimpleNamespace(dev=dev),
    )
    lost, rng, lows = round((1 - needed_share(job)) * items), np.random.default_rng(0), []
    for _ in range(40):
        scores = np.ones(items)
        scores[rng.choice(items, lost, replace=False)] = 0
        lows.append(paired_ratio(scores, np.ones(items), groups).low)
    if lost:
        assert np.mean(lows) == pytest.approx(bar, abs=off)
    else:  # 12 groups of 100 prove no 95 %
        assert lows[0] < bar


def play(truth: list[bool], chances: list[float], patience: float) -> tuple[list[int], int | None]:
    """Finish as the rule says; returns what was measured and the smallest that passed."""
    contenders = [contender(i + 1) for i in range(len(truth))]
    chances, measured = list(chances), []
    while (best := next_to_finish(contenders, chances, contenders, patience)) is not None:
        place = contenders.index(best)
        measured.append(place)
        assert len(measured) <= len(truth)
        best.candidates = [object()]  # type: ignore[list-item]
        chances[place] = float(truth[place])
    return measured, next((i for i in sorted(measured) if truth[i]), None)


def test_the_likeliest_is_finished_first_and_ends_it_when_nothing_smaller_is_likely() -> None:
    assert play([False, True, True], [0.05, 0.9, 0.99], patience=0.3) == ([1], 1)


def test_a_smaller_one_is_tried_while_it_has_a_fair_chance() -> None:
    measured, found = play([True, True, True], [0.4, 0.9, 0.99], patience=0.3)
    assert measured == [1, 0]
    assert found == 0


def test_where_the_likeliest_fails_a_bigger_one_follows() -> None:
    measured, found = play([False, False, True], [0.05, 0.9, 0.8], patience=0.3)
    assert measured == [1, 2]
    assert found == 2


def test_where_none_has_a_chance_the_biggest_is_measured_all_the_same() -> None:
    assert play([False, False, False], [0.0, 0.001, 0.01], patience=0.3) == ([2], None)


@pytest.mark.parametrize("seed", range(30))
def test_with_no_patience_for_doubt_the_smallest_that_passes_is_found(seed: int) -> None:
    """Patience 0: every smaller one with any chance is tried, so the answer cannot be missed."""
    generator = np.random.default_rng(seed)
    truth = (generator.random(6) < 0.5).tolist()
    chances = generator.uniform(0.05, 0.95, 6).tolist()
    _, found = play(truth, chances, patience=0.0)
    assert found == next((i for i, ok in enumerate(truth) if ok), None)


def test_many_small_chances_are_no_large_one() -> None:
    measured, _ = play([False] * 6 + [True], [0.1] * 6 + [0.9], patience=0.3)
    assert measured == [6]


@pytest.mark.parametrize(
    ("end", "tried"), [(None, False), (0.6, False), (0.895, True), (0.97, True)]
)
def test_who_dropped_out_is_no_likelier_than_his_like_who_went_on(
    monkeypatch: pytest.MonkeyPatch, end: float | None, tried: bool
) -> None:
    """Of two of a level: one that fell behind early, and the other, on its way or done."""
    monkeypatch.setattr(search, "passes", lambda passed, _: passed)
    job: Any = SimpleNamespace(
        options=SimpleNamespace(bar=0.9), scorer=SimpleNamespace(needs_generation=False)
    )
    early, ahead = contender(1), contender(2)
    early.step, early.forecast = 10, Forecast(np.log(0.25), 1.1)  # it may be anything
    ahead.step, ahead.forecast = 50, Forecast(np.log(0.25), 0.4)
    if end is not None:
        ahead.step, ahead.forecast, ahead.shares = 100, None, [end]
        ahead.candidates = [end >= 0.9]  # type: ignore[list-item]
    alone = search.chances_of(job, [early])[0]
    assert alone > 0.15
    beside, other = search.chances_of(job, [early, ahead])
    assert (beside > 0.1) == tried
    assert beside <= alone
    assert other == search.chance(job, ahead)


def test_what_cannot_be_exported_is_passed_over() -> None:
    broken, good = contender(1, excluded="differs"), contender(2)
    assert next_to_finish([broken, good], [0.0, 0.5], [broken, good], 0.3) is good
    good.candidates = [object()]  # type: ignore[list-item]
    assert next_to_finish([broken, good], [0.0, 0.0], [broken, good], 0.3) is None


def test_survivors_go_before_those_that_dropped_out() -> None:
    made: list[Any] = [contender(1), contender(2), contender(3)]
    assert next_to_finish(made, [0.3, 0.5, 0.9], [made[2]], 0.3) is made[2]


@pytest.mark.parametrize(
    ("lows", "wanted"),
    [
        ({16: 0.99, 8: 0.97, 4: 0.90}, True),
        ({16: 0.99, 8: 0.97}, True),  # torch has shown that 4 falls short
        ({16: 0.99, 8: 0.97, 4: 0.96}, False),
        ({16: 0.93, 8: 0.92, 4: 0.90}, False),
        ({16: 0.96, 8: 0.94, 4: 0.90}, True),  # they differ by chance, or not much
        ({}, True),  # it alone is asked for
    ],
)
def test_five_bits_are_tried_where_four_fall_short_and_more_would_do(
    lows: dict[int, float], wanted: bool
) -> None:
    wishes = ("exact", "bytes", "quick", Budgets(), None, 0)
    options = check_options("t", Path("t"), Path("o"), 0.95, None, *wishes)
    cost = Cost("llama.cpp", 0.1, 0.1, 1, 1, tokens_per_second=1.0)
    dev = Result(np.zeros(1), [], cost)
    measured = [
        Candidate(
            Shape(1, 64, 64, 2, 1, 32, 100), 1, bits, Path(__file__), Path(), dev,
            cast(Any, SimpleNamespace(low=low)),
        )
        for bits, low in lows.items()
    ]  # fmt: skip
    assert of_use(5, measured, options) is wanted
