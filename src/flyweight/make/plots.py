"""Where everything stands in the report's pictures; the template draws it as SVG.

Written by hand rather than by a plotting library: the pictures take the page's colours and font,
so that they are right in light, dark and print, and each is laid out for a desktop and a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flyweight.card import Card, Row
from flyweight.make import words
from flyweight.make.axis import Axis


@dataclass(frozen=True)
class Tick:
    """A round value with its pixel and its text."""

    value: float
    at: float
    text: str


@dataclass(frozen=True)
class Point:
    """A measured row: where it stands, the ends of its error bar, and what to say about it."""

    x: float
    y: float
    y_low: float
    y_high: float
    row: Row
    kind: str  # teacher, chosen or candidate
    title: str


@dataclass(frozen=True)
class Label:
    """Text in the picture, placed where it hides the least."""

    x: float
    y: float
    anchor: str
    text: str
    kind: str


@dataclass(frozen=True)
class Plot:
    """A picture: its frame, ticks, and either points (the frontier) or curves (the losses)."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    points: list[Point]
    labels: list[Label]
    bar: float | None = None  # pixel of the bar's line
    curves: Sequence[tuple[str, str]] = ()  # name, "x,y x,y ..."


def bar_score(card: Card) -> float:
    """The bar as a dev score, to be drawn as a line: absolute, or a share of the teacher's."""
    if card.verdict.absolute:
        return card.verdict.bar
    teacher = next(row for row in card.rows if row.role == "teacher").dev.mean
    if card.task.score == words.LIKELIHOOD:  # fewer bits are better
        return teacher / card.verdict.bar
    return teacher * card.verdict.bar


def frontier(card: Card, rows: Sequence[Row], width: int, height: int) -> Plot:
    """Dev score against bytes (logarithmic), with two-sided intervals and the bar."""
    scorer = card.task.score
    left, right, top, bottom = 58.0, width - 14.0, 16.0, height - 46.0
    line = bar_score(card)
    x = _bytes_axis([row.bytes for row in rows], left, right)
    values = [each for row in rows for each in (row.dev.low, row.dev.mean, row.dev.high)]
    y = _padded([*values, line], bottom, top)
    points = [_point(row, x, y, scorer) for row in rows]
    first = points[0] if points else None
    named = [point for point in points if point.kind == "chosen" or point is first]
    return Plot(
        width,
        height,
        left,
        right,
        top,
        bottom,
        x_ticks=[Tick(v, x.place(v), _short(words.size(v))) for v in x.ticks(width // 90)],
        y_ticks=[
            Tick(v, y.place(v), _score_tick(v, scorer))
            for v in y.ticks(6)
            if scorer == words.LIKELIHOOD or v <= 1
        ],
        points=points,
        labels=_labels(named, points, y.place(line), (left, right, top, bottom)),
        bar=y.place(line),
    )


def losses(card: Card, width: int, height: int) -> Plot | None:
    """Distillation losses against the share of the steps; logarithmic when they span a decade."""
    curves = {
        name: [(index / max(1, len(values) - 1), value) for index, value in enumerate(values)]
        for name, values in card.losses.items()
    }
    curves = {
        name: [pair for pair in pairs if math.isfinite(pair[1])] for name, pairs in curves.items()
    }
    everything = [value for pairs in curves.values() for _, value in pairs]
    if not everything:
        return None
    left, right, top, bottom = 58.0, width - 14.0, 12.0, height - 46.0
    x = Axis(0, 1, left, right)
    y = _padded(everything, bottom, top, log=min(everything) > 0)
    return Plot(
        width,
        height,
        left,
        right,
        top,
        bottom,
        x_ticks=[
            Tick(v, x.place(v), f"{v:.0%}".replace("%", " %")) for v in (0, 0.25, 0.5, 0.75, 1)
        ],
        y_ticks=[Tick(v, y.place(v), f"{v:g}") for v in y.ticks(5)],
        points=[],
        labels=[],
        curves=[
            (name, " ".join(f"{x.place(at):g},{y.place(value):g}" for at, value in pairs))
            for name, pairs in curves.items()
        ],
    )


@dataclass(frozen=True)
class Stack:
    """A network as stacked layers: each a thin bar (hidden width) on a thick one (MLP width)."""

    width: int
    height: float
    layers: list[float]  # the top of each
    thickness: float
    hidden: float  # length of the thin bars
    mlp: float  # length of the thick bars


def stack(shape: dict[str, int], scale: dict[str, int], width: int = 300) -> Stack:
    """`shape` drawn at the scale at which the bigger shape `scale` fills the picture."""
    pitch = max(2.0, min(20.0, 240.0 / max(1, scale["layers"])))
    widest = max(scale["hidden"], scale["mlp"], 1)
    room = pitch * max(shape["layers"], scale["layers"])
    first = room - pitch * shape["layers"]  # both stand on the same ground
    return Stack(
        width,
        round(room, 2),
        [round(first + pitch * layer, 2) for layer in range(shape["layers"])],
        round(pitch * 0.8, 2),
        round(width * shape["hidden"] / widest, 2),
        round(width * shape["mlp"] / widest, 2),
    )


def _bytes_axis(values: Sequence[int], start: float, end: float) -> Axis:
    low, high = max(1, min(values, default=1)), max(1, max(values, default=1))
    room = max(1.25, (high / low) ** 0.07)
    return Axis(low / room, high * room, start, end, log=True)


def _padded(values: Sequence[float], start: float, end: float, log: bool = False) -> Axis:
    low, high = min(values), max(values)
    if log and high / low > 10:
        room = (high / low) ** 0.06
        return Axis(low / room, high * room, start, end, log=True)
    room = (high - low) * 0.08 or abs(high) * 0.05 or 0.05
    return Axis(low - room, high + room, start, end)


def _point(row: Row, x: Axis, y: Axis, scorer: str) -> Point:
    kind = "chosen" if row.chosen else row.role
    title = (
        f"{row.name}, {row.bits} bits: {words.size(row.bytes)}, "
        f"{words.score(row.dev.mean, scorer)} ({words.score_interval(row.dev, scorer)})"
    )
    return Point(
        x.place(row.bytes),
        y.place(row.dev.mean),
        y.place(row.dev.low),
        y.place(row.dev.high),
        row,
        kind,
        title,
    )


Box = tuple[float, float, float, float]  # left, right, top, bottom
Place = tuple[float, float, str, Box]  # where the text starts, its anchor, the room it takes


def _labels(named: list[Point], points: list[Point], line: float, frame: Box) -> list[Label]:
    """A label for each named point and the bar, where it meets the fewest points and lines."""
    labels = []
    taken: list[Box] = []
    wanted: list[tuple[str, str, Point | None]] = [
        (f"{point.kind}, {words.size(point.row.bytes)}", point.kind, point) for point in named
    ]
    for text, kind, point in [*wanted, ("the bar", "bar", None)]:
        long = 7.8 * len(text)
        places = _around(point, long) if point else _along(line, long, frame)
        costs = [_cost(place[3], point, points, line, frame, taken) for place in places]
        x, y, anchor, box = places[costs.index(min(costs))]
        labels.append(Label(round(x, 1), round(y, 1), anchor, text, kind))
        taken.append(box)
    return labels


def _place(x: float, base: float, anchor: str, long: float) -> Place:
    left = {"start": x, "middle": x - long / 2, "end": x - long}[anchor]
    return x, base, anchor, (left, left + long, base - 11, base + 4)


def _around(point: Point, long: float) -> list[Place]:
    """Right and left of the point, above and below its error bar."""
    x, y = point.x, point.y
    found = []
    for base in (y + 4, y - 14, y + 22):
        found += [_place(x + 13, base, "start", long), _place(x - 13, base, "end", long)]
    for base in (min(point.y_high, y - 8) - 8, max(point.y_low, y + 8) + 16):
        found += [
            _place(x, base, "middle", long),
            _place(x + 8, base, "end", long),
            _place(x - 8, base, "start", long),
        ]
    return found


def _along(line: float, long: float, frame: Box) -> list[Place]:
    """On and under the bar's line, at its ends and between."""
    left, right = frame[0] + 6, frame[1] - 6
    return [
        _place(left + (right - left - long) * step / 8, base, "start", long)
        for base in (line - 7, line + 16)
        for step in range(8, -1, -1)
    ]


def _cost(
    box: Box, own: Point | None, points: list[Point], line: float, frame: Box, taken: list[Box]
) -> float:
    """How bad a place is: out of the frame, on another label, on points, on the bar's line."""
    left, right, top, bottom = box
    cost = 100.0 * (left < frame[0] or right > frame[1] or top < 0 or bottom > frame[3])
    cost += 50.0 * any(
        left < other[1] and right > other[0] and top < other[3] and bottom > other[2]
        for other in taken
    )
    for point in points:
        if left - 6 < point.x < right + 6:
            cost += 8.0 * (top - 6 < point.y < bottom + 6)
            cost += 2.0 * (point is not own and point.y_high < bottom and point.y_low > top)
    return cost + 3.0 * (top < line < bottom)


def _short(text: str) -> str:
    return text.replace(".0 ", " ")


def _score_tick(value: float, scorer: str) -> str:
    return f"{value:g}" if scorer == words.LIKELIHOOD else f"{round(value * 100, 6):g} %"
