"""What the report's pictures share: a frame with ticks, and scales with room at their ends.

Written by hand rather than by a plotting library: the pictures take the page's colours and font,
so that they are right in light, dark and print, and each is laid out for a desktop and a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flyweight.make import words
from flyweight.make.axis import Axis

LEFT, RIGHT, BELOW = 58.0, 14.0, 46.0  # pixels around a frame: y's texts, room, x's texts and title


@dataclass(frozen=True)
class Tick:
    """A round value with its pixel and its text."""

    value: float
    at: float
    text: str


@dataclass(frozen=True)
class Frame:
    """A picture's size, the rectangle that it draws in, and its ticks; in pixels."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """A logarithmic scale that holds positive values, with room at both ends."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    room = max(1.25, (high / low) ** 0.09)
    return Axis(low / room, high * room, start, end, log=True)


def padded(values: Sequence[float], start: float, end: float, log: bool = False) -> Axis:
    """A scale that holds the values, with room; logarithmic if asked and they span a decade."""
    low, high = min(values), max(values)
    if log and high / low > 10:
        room = (high / low) ** 0.06
        return Axis(low / room, high * room, start, end, log=True)
    room = (high - low) * 0.08 or abs(high) * 0.05 or 0.05
    return Axis(low - room, high + room, start, end)


def score_ticks(axis: Axis, scorer: str, most: int = 6) -> list[Tick]:
    """Round scores, none above the whole; bits per byte without a unit, others as percentages."""
    plain = scorer == words.LIKELIHOOD
    return [
        Tick(value, axis.place(value), f"{value:g}" if plain else words.bar_percent(value))
        for value in axis.ticks(most)
        if plain or 0 <= value <= 1
    ]


def short(text: str) -> str:
    """A round figure without its zeros: "2 MB" for "2.0 MB", "5 min" for "5 min 00 s"."""
    return text.replace(".0 ", " ").replace(" 00 s", "").replace(" 00 min", "")
