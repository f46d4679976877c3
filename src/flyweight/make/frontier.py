"""The frontier: dev score of everything measured, against bytes or latency, with the bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flyweight.card import Card, Row
from flyweight.make import words
from flyweight.make.axis import Axis
from flyweight.make.plots import (
    BELOW,
    LEFT,
    RIGHT,
    Frame,
    Tick,
    log_axis,
    padded,
    score_ticks,
    short,
)

FAR = 0.6  # of the span of all others: a rival that is worse by more is drawn at the edge
Against = Literal["bytes", "latency"]


@dataclass(frozen=True)
class Point:
    """A measured row: where it stands, the ends of its error bar, and what to say about it."""

    x: float
    y: float
    y_low: float
    y_high: float
    row: Row
    kind: str  # chosen, or the role in one word: teacher, quantised, scratch, candidate
    title: str
    off: bool  # its score lies beyond the frame


@dataclass(frozen=True)
class Label:
    """Text in the picture, placed where it hides the least."""

    x: float
    y: float
    anchor: str
    text: str
    kind: str


@dataclass(frozen=True)
class Frontier(Frame):
    """The picture: points, their labels, and the pixel of the bar's line."""

    against: Against
    points: list[Point]
    labels: list[Label]
    bar: float


def bar_score(card: Card) -> float:
    """The bar as a dev score, to be drawn as a line: absolute, or a share of the teacher's."""
    if card.verdict.absolute:
        return card.verdict.bar
    teacher = next(row for row in card.rows if row.role == "teacher").dev.mean
    if card.task.score == words.LIKELIHOOD:  # fewer bits are better
        return teacher / card.verdict.bar
    return teacher * card.verdict.bar


def frontier(
    card: Card, rows: Sequence[Row], width: int, height: int, against: Against = "bytes"
) -> Frontier:
    """Dev score against bytes or p50 seconds (logarithmic), with intervals and the bar."""
    scorer = card.task.score
    left, right, top, bottom = LEFT, width - RIGHT, 16.0, height - BELOW
    line = bar_score(card)
    x = log_axis([_place_of(row, against) for row in rows], left, right)
    far = _far_off(rows, line, scorer)
    values = [
        each for row in rows if row not in far for each in (row.dev.low, row.dev.mean, row.dev.high)
    ]
    y = padded([*values, line], bottom, top)
    points = [_point(row, x, y, scorer, against, row in far) for row in rows]
    say = words.size if against == "bytes" else words.seconds
    return Frontier(
        width,
        height,
        left,
        right,
        top,
        bottom,
        x_ticks=[Tick(v, x.place(v), short(say(v))) for v in x.ticks(width // 80)],
        y_ticks=score_ticks(y, scorer),
        against=against,
        points=points,
        labels=_labels(_named(points, scorer), points, y.place(line), (left, right, top, bottom)),
        bar=y.place(line),
    )


def _place_of(row: Row, against: Against) -> float:
    return max(row.bytes, 1) if against == "bytes" else max(row.latency_p50, 1e-7)


def _far_off(rows: Sequence[Row], line: float, scorer: str) -> list[Row]:
    """Models from scratch so much worse than all others that they would squeeze the picture."""
    others = [row.dev.mean for row in rows if row.role != "from scratch"]
    span = max([*others, line]) - min([*others, line])
    sign = -1 if scorer == words.LIKELIHOOD else 1
    worst = min(sign * each for each in [*others, line])
    return [
        row
        for row in rows
        if row.role == "from scratch" and worst - sign * row.dev.mean > FAR * span + 0.02
    ]


def _point(row: Row, x: Axis, y: Axis, scorer: str, against: Against, off: bool) -> Point:
    roles = {"quantised teacher": "quantised", "from scratch": "scratch"}
    kind = "chosen" if row.chosen else roles.get(row.role, row.role)
    title = (
        f"{row.name}, {row.bits} bits: {words.size(row.bytes)}, {words.seconds(row.latency_p50)} "
        f"an answer, {words.score(row.dev.mean, scorer)} ({words.score_interval(row.dev, scorer)})"
    )
    along = x.place(_place_of(row, against))
    if off:  # beyond the frame's worse edge: at the bottom, or at the top for bits per byte
        edge = y.end + 14 if scorer == words.LIKELIHOOD else y.start - 14
        return Point(along, edge, edge, edge, row, kind, title, off)
    low, high = sorted((y.place(row.dev.low), y.place(row.dev.high)), reverse=True)
    return Point(along, y.place(row.dev.mean), low, high, row, kind, title, off)


def _named(points: list[Point], scorer: str) -> list[tuple[str, str, Point | None]]:
    """What is labelled: the chosen model, its rivals, and the bar."""
    order = {"chosen": 0, "teacher": 1, "quantised": 2, "scratch": 3}
    named: list[tuple[str, str, Point | None]] = []
    for point in sorted(points, key=lambda point: order.get(point.kind, 9)):
        if point.kind not in order:
            continue
        text = {
            "chosen": "chosen",
            "teacher": "teacher",
            "quantised": f"teacher, {point.row.bits} bits",
            "scratch": "from scratch",
        }[point.kind]
        if point.off:
            text += f": {words.score(point.row.dev.mean, scorer)}"
        if (text, point.kind) not in [each[:2] for each in named]:
            named.append((text, point.kind, point))
    return [*named, ("the bar", "bar", None)]


Box = tuple[float, float, float, float]  # left, right, top, bottom
Place = tuple[float, float, str, Box]  # where the text starts, its anchor, the room it takes


def _labels(
    named: list[tuple[str, str, Point | None]], points: list[Point], line: float, frame: Box
) -> list[Label]:
    """A label for each named point and the bar, where it meets the fewest points and lines."""
    labels = []
    taken: list[Box] = []
    for text, kind, point in named:
        long = 7.6 * len(text)
        places = _around(point, long) if point else _along(line, long, frame)
        costs = [
            _cost(place[3], point, points, line, frame, taken) + 0.1 * rank
            for rank, place in enumerate(places)
        ]
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
        if left - 7 < point.x < right + 7:
            cost += 8.0 * (top - 7 < point.y < bottom + 7)
            cost += 2.0 * (point is not own and point.y_high < bottom and point.y_low > top)
    return cost + 3.0 * (top < line < bottom)
