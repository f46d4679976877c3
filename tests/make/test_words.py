"""Figures and verdict sentences, read back and compared with decimal arithmetic."""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sample_card import odd_quotes, quote, way

from flyweight.make import words
from flyweight.tasks.statistics import Ratio
from flyweight.tasks.verdict import judge

SHARES = st.floats(0.0, 1.2, allow_subnormal=False)
UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}
SECONDS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


@given(st.integers(0, 10**17))
@example(999_950)
@example(999_499)
def test_a_size_reads_back_within_its_last_digit(count: int) -> None:
    number, unit = words.size(count).split()
    value = float(number.replace(",", ""))
    last = 10.0 ** -len(number.partition(".")[2]) * UNITS[unit]
    assert abs(value * UNITS[unit] - count) <= last / 2 + count * 1e-9 + 0.05 * UNITS[unit] * (
        unit != "bytes" and value < 1.05
    )
    assert value < 1000 or unit == "PB"


@given(st.floats(1e-6, 1e6))
def test_a_duration_reads_back_within_five_percent(value: float) -> None:
    parts = words.seconds(value).replace(",", "").split()
    read = sum(float(n) * SECONDS[unit] for n, unit in zip(parts[::2], parts[1::2], strict=True))
    assert read == pytest.approx(value, rel=0.06)


def test_what_is_not_the_whole_never_reads_as_the_whole() -> None:
    assert words.percent(1.0) == "100.0 %"
    assert words.percent(0.99996) == "99.996 %"
    assert words.percent(0.9776) == "97.8 %"


@given(SHARES, st.sampled_from([0.5, 0.9, 0.95, 0.975, 0.99, 1.0]))
@example(0.9499999, 0.95)
@example(0.95, 0.95)
@example(0.978, 0.95)
@example(0.9500001, 0.95)
def test_limits_are_rounded_outward_and_never_across_the_bar(value: float, bar: float) -> None:
    low = float(words.lower_limit(value, bar).removesuffix(" %"))
    high = float(words.upper_limit(value, bar).removesuffix(" %"))
    assert low <= value * 100 + 1e-6
    assert high >= value * 100 - 1e-6
    if abs(value - bar) > 1e-7:  # nearer than that, six decimals of a percent do not tell
        assert (low >= bar * 100) == (value >= bar) == (high >= bar * 100)


@given(st.decimals("0", "1", places=6))
def test_limits_agree_with_decimal_arithmetic(value: Decimal) -> None:
    step = Decimal("0.1")
    for say, rounding in (
        (words.lower_limit, ROUND_FLOOR),
        (words.upper_limit, ROUND_CEILING),
    ):
        expected = (value * 100).quantize(step, rounding=rounding)
        assert say(float(value)) == f"{expected} %"


def sentence(estimate: float, low: float, high: float, **more: object) -> str:
    ratio = Ratio(estimate, low, high, 0.95, 1000, 125, 30)
    return words.verdict_sentence(judge(ratio, 0.95), 1_960_000, **more)  # type: ignore[arg-type]


def test_the_sentence_of_a_model_that_passes() -> None:
    assert sentence(0.978, 0.9641, 0.99) == (
        "The 2.0 MB model keeps 97.8 % of the teacher's score on 1,000 unseen items (at least "
        "96.4 %, one-sided 95 %), which passes the bar of 95 %."
    )


def test_the_sentence_of_a_model_that_falls_short_says_by_how_much() -> None:
    assert sentence(0.912, 0.89, 0.9312) == (
        "The 2.0 MB model keeps 91.2 % of the teacher's score on 1,000 unseen items (at most "
        "93.2 %, one-sided 95 %), which falls short of the bar of 95 % by 3.8 points."
    )


def test_the_sentence_of_an_open_verdict_says_what_would_tell() -> None:
    said = sentence(0.956, 0.942, 0.969)
    more = judge(Ratio(0.956, 0.942, 0.969, 0.95, 1000, 125, 30), 0.95).more_groups
    assert "(between 94.2 % and 96.9 %, each one-sided 95 %), which leaves open whether" in said
    assert f"about {more:,} more groups of items (there are 125) would likely tell." in said
    assert sentence(0.95, 0.94, 0.96).endswith("no reachable number of items would tell.")
    assert "(at least 94.0 %, one-sided 95 %, with no upper limit)" in sentence(
        0.96, 0.94, math.inf
    )


def test_the_sentence_of_absolute_bars_and_of_likelihood() -> None:
    assert sentence(0.978, 0.96, 0.99, absolute=True).startswith(
        "The 2.0 MB model scores 97.8 % on 1,000 unseen items (at least 96.0 %"
    )
    assert "of the teacher's compression (bits per byte)" in sentence(
        0.978, 0.96, 0.99, scorer="likelihood"
    )


@given(estimate=SHARES, below=st.floats(0, 0.2), above=st.floats(0, 0.2))
def test_every_sentence_is_one_and_holds_its_word(
    estimate: float, below: float, above: float
) -> None:
    ratio = Ratio(estimate, max(0.0, estimate - below), estimate + above, 0.95, 40, 7, 3)
    verdict = judge(ratio, 0.95)
    said = words.verdict_sentence(verdict, 2_000_000)
    marks = {"passes": "passes", "falls short": "falls short", "cannot tell": "leaves open"}
    assert [word for word, mark in marks.items() if mark in said] == [verdict.word]
    assert len(re.findall(r"[.!?](?:\s|$)", said)) == 1


def test_moments_are_told_in_utc() -> None:
    assert words.moment("2026-05-04T11:12:44+02:00") == "2026-05-04 09:12 UTC"
    assert words.moment("some day") == "some day"


def test_advice_is_given_unless_the_verdict_passes() -> None:
    passes = judge(Ratio(0.99, 0.97, 1.0, 0.95, 100, 50, 3), 0.95)
    open_ = judge(Ratio(0.96, 0.94, 0.98, 0.95, 100, 50, 3), 0.95)
    short = judge(Ratio(0.90, 0.88, 0.92, 0.95, 100, 50, 3), 0.95)
    assert words.advice(passes) == ""
    assert "groups" in words.advice(open_)
    assert "train items" in words.advice(short)
    assert "groups" not in words.advice(short)


def test_fates_are_told_with_steps_forecast_and_range() -> None:
    shape = {"layers": 2}
    assert words.fate(way(shape, 9, 0.1, 0.961)) == "finished at 96.1 % after 938 steps"
    assert words.fate(way(shape, 9, 0.1, 0.91, "dropped", 1 / 8)) == (
        "dropped after 117 of 938 steps: would reach about 91 % (likely 85 to 96 %)"
    )
    hopeless = way(shape, 9, 0.1, 0.5, "hopeless", 1 / 16)
    assert words.fate(hopeless).startswith("hopeless after 59 of 938 steps: would reach about 50 %")
    bare = hopeless.model_copy(update={"predicted": None, "steps": [], "shares": []})
    assert words.fate(bare) == "hopeless after 0 of 938 steps"


def test_shapes_are_told_as_far_as_they_are_known() -> None:
    sizes = {"layers": 4, "hidden": 224, "mlp": 384, "heads": 6, "kv_groups": 2}
    assert words.shape(sizes) == "4 layers x 224, MLP 384, 6 heads in 2 groups"
    assert words.shape({"layers": 1}) == "1 layer"


def test_a_quote_is_told_beside_what_came_with_the_source_of_its_rates() -> None:
    assert words.quote_line(quote()) == (
        "quoted 3 min 10 s (3 min 24 s for the sizes that were trained), took 3 min 32 s"
    )
    assert words.quote_line(odd_quotes()["stopped"]) == "quoted 3 min 10 s"
    assert words.quote_rates(quote()) == "measured on 4 past jobs on this machine"
    assert words.quote_range(quote()) == (
        "2 min 01 s if the smallest size passes at once, 6 min 52 s if every size is tried"
    )
    assert words.quote_range(odd_quotes()["free"]) == ""
    one = quote().model_copy(update={"jobs": 1})
    assert words.quote_rates(one) == "measured on 1 past job on this machine"
    assert words.quote_rates(odd_quotes()["assumed"]).startswith("assumed")
