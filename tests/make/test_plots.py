"""Axes, labels and shapes of the report's pictures."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from html_page import Page, classes
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sample_card import (
    STUDENT,
    interval,
    many_recoveries,
    recovery,
    rivals,
    rows,
    sample_card,
    verdict,
    way,
)

from flyweight.card import Recovery, Row
from flyweight.make.axis import Axis
from flyweight.make.curve_plots import LEAST, Nearness, order_recoveries, recovery_plot
from flyweight.make.frontier import Frontier, bar_score, frontier
from flyweight.make.report import render
from flyweight.make.rivals import order_rows
from flyweight.make.stacks import Block, ranges, stacks

POSITIVE = st.floats(1e-6, 1e15)
SHARE = st.floats(-0.2, 1.3)


@given(POSITIVE, POSITIVE, st.booleans(), st.integers(2, 12))
def test_ticks_are_few_inside_and_in_order(a: float, b: float, log: bool, most: int) -> None:
    low, high = min(a, b), max(a, b)
    assume(high > low * 1.01)
    ticks = Axis(low, high, 0, 100, log).ticks(most)
    assert len(ticks) <= most
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)


@given(POSITIVE, POSITIVE, st.booleans())
def test_the_ends_of_an_axis_are_its_pixels(a: float, b: float, log: bool) -> None:
    low, high = min(a, b), max(a, b)
    assume(high > low * 1.01)
    axis = Axis(low, high, 10, 90, log)
    assert (axis.place(low), axis.place(high)) == (10, 90)
    middle = math.sqrt(low * high) if log else (low + high) / 2
    assert axis.place(middle) == 50


def test_the_bar_is_drawn_where_a_student_would_just_reach_it() -> None:
    assert bar_score(sample_card()) == 0.95 * 0.982
    absolute = sample_card(verdict=verdict(absolute=True, bar=0.9))
    assert bar_score(absolute) == 0.9
    task = sample_card().task.model_copy(update={"score": "likelihood"})
    assert bar_score(sample_card(task=task)) == 0.982 / 0.95  # fewer bits are better


@given(st.lists(st.tuples(st.integers(1, 10**12), st.floats(1e-5, 1e3)), min_size=1, max_size=8))
def test_everything_stays_in_the_frame(measured: list[tuple[int, float]]) -> None:
    template = [*rows(), *rivals(scratch=0.1)]
    many = [
        template[-index % len(template)].model_copy(
            update={"bytes": count, "latency_p50": seconds, "role": "teacher"}
            if index == 0
            else {"bytes": count, "latency_p50": seconds}
        )
        for index, (count, seconds) in enumerate(measured)
    ]
    card = sample_card(rows=many)
    for width in (350, 480):
        for against in ("bytes", "latency"):
            plot = frontier(card, order_rows(many), width, 360, against)
            for point in plot.points:
                assert plot.left <= point.x <= plot.right
                assert plot.top <= point.y_high <= point.y <= point.y_low <= plot.bottom
            assert plot.top <= plot.bar <= plot.bottom


def test_a_rival_far_below_is_drawn_at_the_edge_with_its_score() -> None:
    for scratch, off in ((0.3, True), (0.93, False)):
        card = sample_card(rows=[*rows(), *rivals(scratch=scratch)])
        plot = frontier(card, order_rows(card.rows), 480, 400)
        assert [point.off for point in plot.points if point.kind == "scratch"] == [off]
        label = next(label.text for label in plot.labels if label.kind == "scratch")
        assert label == ("from scratch: 29.5 %" if off else "from scratch")
        assert not any(point.off for point in plot.points if point.kind != "scratch")


@pytest.mark.parametrize("width", [350, 480])
@pytest.mark.parametrize("scratch", [0.3, 0.7, 0.94, 0.967, 0.98])
def test_labels_keep_clear_of_each_other(width: int, scratch: float) -> None:
    card = sample_card(rows=[*rows(), *rivals(scratch=scratch)])
    for against in ("bytes", "latency"):
        check_labels(frontier(card, order_rows(card.rows), width, 400, against))


def check_labels(plot: Frontier) -> None:
    """No label leaves the picture or lies on another one; all rivals and the bar have one."""
    boxes = []
    for label in plot.labels:
        long = 7.0 * len(label.text)
        left = label.x - {"start": 0.0, "middle": long / 2, "end": long}[label.anchor]
        boxes.append((left, left + long, label.y - 10, label.y + 3))
    assert {label.kind for label in plot.labels} == {
        "chosen", "teacher", "quantised", "scratch", "bar",
    }  # fmt: skip
    for index, (left, right, top, bottom) in enumerate(boxes):
        assert left > 0
        assert right <= plot.width
        for a, b, c, d in boxes[:index]:
            assert right <= a or b <= left or bottom <= c or d <= top


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(10_000, 10**10), st.floats(1e-4, 100.0), st.floats(0.05, 0.95)
        ),
        min_size=2,
        max_size=6,
    )
)  # fmt: skip
def test_points_stand_where_the_ticks_say(measured: list[tuple[int, float, float]]) -> None:
    models = [
        rows()[index].model_copy(
            update={"bytes": count, "latency_p50": seconds, "dev": interval(score)}
        )
        for index, (count, seconds, score) in enumerate(measured)
    ]
    charts = split_charts(Page(render(sample_card(rows=models))))
    assert [name for name, *_ in charts] == ["bytes", "latency"] * 2  # for a desktop, for a phone
    for chart in charts:
        check_chart(*chart, models)


Ticks = list[tuple[float, float]]  # value, pixel
Chart = tuple[str, Ticks, Ticks, list[dict[str, str]]]


def split_charts(page: Page) -> list[Chart]:
    """What each frontier picture is against, the ticks of its axes, and its points."""
    charts: list[Chart] = []
    current: Chart = ("", [], [], [])
    for tag, attrs in page.tags:
        if tag == "svg":
            current = (classes(attrs)[-1] if classes(attrs) else "", [], [], [])
            if "frontier" in classes(attrs):
                charts.append(current)
        elif tag == "g" and "data-at" in attrs:
            ticks = current[1] if "x-tick" in classes(attrs) else current[2]
            ticks.append((float(attrs["data-value"]), float(attrs["data-at"])))
        elif tag == "g" and "data-bytes" in attrs:
            current[3].append(attrs)
    return charts


def check_chart(
    name: str, x: Ticks, y: Ticks, points: list[dict[str, str]], models: list[Row]
) -> None:
    """Points lie on the lines that the ticks span: log bytes or seconds across, score upward."""
    assert sorted((int(p["data-bytes"]), float(p["data-score"])) for p in points) == sorted(
        (row.bytes, row.dev.mean) for row in models
    )
    across = f"data-{name}"
    for ticks, scale, key, place in ((x, np.log10, across, 0), (y, float, "data-score", 1)):
        if len(ticks) < 2:
            continue
        values = [float(scale(value)) for value, _ in ticks]
        slope, start = np.polyfit(values, [pixel for _, pixel in ticks], 1)
        assert (slope > 0) == (key == across)
        for point in points:
            pixel = float(re.findall(r"[\d.]+", point["transform"])[place])
            assert pixel == pytest.approx(slope * scale(float(point[key])) + start, abs=0.2)


@given(st.lists(SHARE, min_size=1, max_size=10))
def test_nearness_is_logarithmic_in_what_is_missing(shares: list[float]) -> None:
    scale = Nearness.over(shares, 20, 300)
    pixels = [scale.place(share) for share in shares]
    assert all(20 <= pixel <= 300 for pixel in pixels)
    ordered = [pixel for _, pixel in sorted(zip(shares, pixels, strict=True))]
    assert ordered == sorted(ordered, reverse=True)
    inside = [tick for tick in scale.ticks() if tick.value < 1 - LEAST]
    if len(inside) >= 3:
        slope, start = np.polyfit(
            [math.log(1 - tick.value) for tick in inside], [tick.at for tick in inside], 1
        )
        for share, pixel in zip(shares, pixels, strict=True):
            if 0 <= share <= 1 - LEAST:
                assert pixel == pytest.approx(slope * math.log(1 - share) + start, abs=0.1)
    if max(shares) > 1 - LEAST:
        assert scale.ticks()[-1].text == "≥ 99.5 %"


def odd_searches() -> list[list[Recovery]]:
    one = recovery()[2]
    return [
        recovery(),
        many_recoveries(),
        [one.model_copy(update={"steps": [938], "shares": [1.1]})],
        [one.model_copy(update={"steps": [0], "shares": [0.0]})],
        [one.model_copy(update={"steps": [1, 2], "shares": [math.nan, 0.4]})],
        [recovery()[1].model_copy(update={"predicted": math.inf})],
        [way({**STUDENT, "mlp": i}, 9, 0.1, 0.9, "dropped", 1 / 16) for i in range(12)],
    ]


@pytest.mark.parametrize("found", odd_searches())
@pytest.mark.parametrize("width", [350, 976])
def test_recoveries_stay_in_the_frame_forecasts_right_of_the_last_step(
    found: list[Recovery], width: int
) -> None:
    card = sample_card(recovery=found)
    plot = recovery_plot(card, width, 380)
    assert plot is not None
    assert len(plot.curves) == len(found)
    for curve in plot.curves:
        for pair in curve.line.split():
            x, y = map(float, pair.split(","))
            assert plot.left <= x <= plot.end + 0.1
            assert plot.top <= y <= plot.bottom
    for whisker in plot.whiskers:
        assert plot.end < whisker.x <= plot.right
        assert plot.top <= whisker.y_high <= whisker.y <= whisker.y_low <= plot.bottom
    assert [whisker.x for whisker in plot.whiskers] == sorted({w.x for w in plot.whiskers})
    broken = [e for e in found if e.fate != "finished" and math.isfinite(e.predicted or math.inf)]
    assert len(plot.whiskers) + plot.hidden == len(broken)
    texts = [(curve.x, curve.text_y) for curve in plot.curves if curve.text_y is not None]
    for index, (x, y) in enumerate(texts):
        assert all(abs(a - x) >= 14 or abs(b - y) >= 12.9 for a, b in texts[:index])


def test_the_chosen_shape_comes_first_then_what_finished() -> None:
    ordered = order_recoveries(sample_card())
    assert ordered[0].shape == STUDENT
    assert [each.fate for each in ordered] == ["finished"] * 3 + ["dropped"] * 2 + ["hopeless"]


def test_nothing_is_drawn_where_nothing_was_read() -> None:
    unread = recovery()[1].model_copy(update={"steps": [], "shares": []})
    for found in ([], [unread]):
        assert recovery_plot(sample_card(recovery=found), 976, 380) is None


def test_both_shapes_are_drawn_to_one_scale_with_a_line_from_each_kept_layer() -> None:
    picture = stacks(sample_card(), 704)
    heights = {kind: blocks_of(picture.blocks, kind) for kind in KINDS}
    assert len(heights["mlp"]) == 4  # kept layers as they were
    assert len(heights["gone mlp"]) == 4
    assert len(heights["kept mlp"]) == 4 + 4  # what is left of them, and the student
    assert len(picture.links) == 4
    widths = {kind: {block.width for block in blocks} for kind, blocks in heights.items()}
    (teacher,), (student,) = widths["mlp"], widths["kept mlp"]
    assert student / teacher == pytest.approx(384 / 768, abs=1e-3)
    (wide,), (narrow,) = widths["hidden"], widths["kept hidden"]
    assert narrow / wide == pytest.approx(224 / 288, abs=1e-3)
    lowest = [max(block.y for block in heights[kind]) for kind in ("mlp", "kept mlp")]
    assert lowest[0] == lowest[1]
    for block in picture.blocks:
        assert 0 <= block.x <= block.x + block.width <= 704.01
        assert 0 <= block.y <= block.y + block.height <= picture.height


KINDS = ("mlp", "hidden", "gone mlp", "kept mlp", "kept hidden")


def blocks_of(blocks: list[Block], kind: str) -> list[Block]:
    return [block for block in blocks if block.kind == kind]


@pytest.mark.parametrize("kept", [[], [0, 1, 99], list(range(8))])
def test_a_card_that_does_not_say_which_layers_are_kept_has_plain_stacks(kept: list[int]) -> None:
    picture = stacks(sample_card(kept_layers=kept), 350)
    gone = [block for block in picture.blocks if block.kind == "gone mlp"]
    assert len(gone) == (6 if len(kept) == 3 else 0)
    assert len(picture.links) == min(4, {0: 0, 3: 2, 8: 8}[len(kept)])


@given(st.sets(st.integers(1, 90)))
def test_ranges_hold_just_the_numbers(numbers: set[int]) -> None:
    read: set[int] = set()
    for part in filter(None, ranges(sorted(numbers)).split(", ")):
        first, _, last = part.partition(" to ")
        read |= set(range(int(first), int(last or first) + 1))
    assert read == numbers
