"""Axes, labels and shapes of the report's pictures."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st
from sample_card import rows, sample_card, verdict

from flyweight.make.axis import Axis
from flyweight.make.plots import bar_score, frontier, stack
from flyweight.make.report import order_rows

POSITIVE = st.floats(1e-6, 1e15)


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


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=8))
def test_everything_stays_in_the_frame(sizes: list[int]) -> None:
    template = rows()
    many = [
        template[index % len(template)].model_copy(update={"bytes": count})
        for index, count in enumerate(sizes)
    ]
    card = sample_card(rows=many)
    for width in (350, 976):
        plot = frontier(card, order_rows(many), width, 360)
        for point in plot.points:
            assert plot.left <= point.x <= plot.right
            assert plot.top <= point.y_high <= point.y <= point.y_low <= plot.bottom
        assert plot.bar is not None
        assert plot.top <= plot.bar <= plot.bottom


def test_both_shapes_are_drawn_to_one_scale() -> None:
    card = sample_card()
    teacher = stack(card.teacher.shape, card.teacher.shape)
    student = stack(card.shape, card.teacher.shape)
    assert (len(teacher.layers), len(student.layers)) == (8, 4)
    assert student.hidden / teacher.hidden == 224 / 288
    assert student.mlp / teacher.mlp == 384 / 768
    assert student.layers[-1] == teacher.layers[-1]
