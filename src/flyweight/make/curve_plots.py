"""Curves over training: how cut shapes recover, and, for cards without that, their losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flyweight.card import Card, Recovery
from flyweight.make import words
from flyweight.make.axis import Axis
from flyweight.make.plots import BELOW, LEFT, RIGHT, Frame, Tick, padded

NUMBERED = 12  # curves that bear their number
LINKED = 8  # forecasts that are joined to their curve
PITCH = (5.0, 16.0)  # pixels from one forecast to the next, at least and at most
LEAST = 0.005  # missing to the whole: on a sample of dev, less cannot be told from nothing
ROUND = (0.0, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)  # shares with a tick
APART = 13.0  # pixels between the numbers of curves that end together


@dataclass(frozen=True)
class Curve:
    """One shape's way back: its number in the key, its line, and where it ends."""

    number: int
    kind: str  # chosen, or its fate
    line: str  # "x,y x,y ..."
    x: float
    y: float
    text_y: float | None  # where its number stands
    title: str


@dataclass(frozen=True)
class Whisker:
    """What a curve that was broken off promised for the last step, and the likely range."""

    number: int
    kind: str
    x: float
    y: float
    y_low: float
    y_high: float
    link: str  # from the curve's end, or empty
    text: bool  # whether there is room for its number


@dataclass(frozen=True)
class Recovered(Frame):
    """The picture of all recoveries; `end` is the pixel of the last step."""

    curves: list[Curve]
    whiskers: list[Whisker]
    bar: float
    end: float
    hidden: int  # forecasts without room


@dataclass(frozen=True)
class Losses(Frame):
    """The picture of the losses: name and line of each."""

    curves: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Nearness:
    """A scale of shares that stretches towards the whole: logarithmic in what is missing to it.

    Recovery is about a power law: there it is a straight line, and what happens near the bar can be
    seen. A share of nearly 1 or more stands at the top, one of 0 or less at the bottom.
    """

    axis: Axis  # of 1 - share
    clipped: bool  # some shares were too near to the whole

    @classmethod
    def over(cls, shares: Sequence[float], top: float, bottom: float) -> Nearness:
        missing = [min(1.0, max(LEAST, 1 - share)) for share in shares]
        low, high = min(missing) / 1.6, max(missing)
        high = 1.0 if high > 0.7 else max(high * 1.2, low * 2)
        clipped = min(1 - share for share in shares) < LEAST
        return cls(Axis(LEAST if clipped else low, high, top, bottom, log=True), clipped)

    def place(self, share: float) -> float:
        return self.axis.place(min(self.axis.high, max(self.axis.low, 1 - share)))

    def ticks(self) -> list[Tick]:
        """Round shares, and the mark of what lies beyond the scale."""
        inside = [
            share for share in ROUND if self.axis.low * 1.02 < 1 - share <= self.axis.high * 1.0001
        ]
        found = [Tick(share, self.place(share), words.bar_percent(share)) for share in inside]
        if self.clipped:
            found.append(Tick(1 - LEAST, self.place(1.0), f"≥ {words.bar_percent(1 - LEAST)}"))
        return found


def order_recoveries(card: Card) -> list[Recovery]:
    """The chosen shape's first, then what finished, was dropped, was hopeless; best first."""
    fates = ("finished", "dropped", "hopeless")

    def rank(recovery: Recovery) -> tuple[bool, int, float]:
        end = recovery.shares[-1] if recovery.shares else 0.0
        if recovery.fate != "finished" and recovery.predicted is not None:
            end = recovery.predicted
        return recovery.shape != card.shape, fates.index(recovery.fate), -end

    return sorted(card.recovery, key=rank)


def recovery_plot(card: Card, width: int, height: int) -> Recovered | None:
    """Share of the teacher's dev score against steps (logarithmic), with forecasts at the end."""
    ordered = list(enumerate(order_recoveries(card), 1))
    curves = {number: pairs for number, each in ordered if (pairs := _pairs(each))}
    if not curves:
        return None
    broken = [(number, each) for number, each in ordered if _forecast(each)]
    left, right, top, bottom = LEFT + 14, width - RIGHT, 14.0, height - BELOW  # "≥ 99.5 %"
    room = right - left
    pitch = min(PITCH[1], max(PITCH[0], room * 0.24 / max(1, len(broken))))
    drawn = broken[: int(room * 0.3 / pitch)]
    end = right - 24 - pitch * len(drawn)
    steps = [step for pairs in curves.values() for step, _ in pairs]
    last = max([*steps, *(each.full_steps for _, each in ordered)])
    x = Axis(min([*steps, last * 0.5]) / 1.12, last, left, end, log=True)
    shares = [share for pairs in curves.values() for _, share in pairs]
    shares += [value for _, each in drawn for value in _forecast(each)]
    y = Nearness.over([*shares, card.verdict.bar], top, bottom)
    lines = [
        _curve(number, each, curves[number], x, y, card) for number, each in ordered
        if number in curves
    ]  # fmt: skip
    ends = {curve.number: (curve.x, curve.y) for curve in lines}
    whiskers = [
        _whisker(
            number, each, end + 26 + pitch * lane, y,
            ends.get(number) if len(drawn) <= LINKED else None, pitch >= 11,
        )
        for lane, (number, each) in enumerate(drawn)
    ]  # fmt: skip
    ticks = [Tick(v, x.place(v), f"{v:,.0f}") for v in x.ticks(int((end - left) // 60)) if v >= 1]
    return Recovered(
        width, height, left, right, top, bottom,
        x_ticks=ticks,
        y_ticks=y.ticks(),
        curves=_spread(lines, top, bottom),
        whiskers=whiskers,
        bar=y.place(card.verdict.bar),
        end=end,
        hidden=len(broken) - len(drawn),
    )  # fmt: skip


def losses(card: Card, width: int, height: int) -> Losses | None:
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
    left, right, top, bottom = LEFT, width - RIGHT, 12.0, height - BELOW
    x = Axis(0, 1, left, right)
    y = padded(everything, bottom, top, log=min(everything) > 0)
    return Losses(
        width, height, left, right, top, bottom,
        x_ticks=[Tick(v, x.place(v), words.bar_percent(v)) for v in (0, 0.25, 0.5, 0.75, 1)],
        y_ticks=[Tick(v, y.place(v), f"{v:g}") for v in y.ticks(5)],
        curves=[(name, _line(pairs, x, y)) for name, pairs in curves.items()],
    )  # fmt: skip


def _pairs(recovery: Recovery) -> list[tuple[float, float]]:
    """Steps (at least 1, for the logarithm) with their shares."""
    pairs = zip(recovery.steps, recovery.shares, strict=False)
    return [(max(1, step), share) for step, share in pairs if math.isfinite(share)]


def _forecast(recovery: Recovery) -> list[float]:
    """Likely share, low and high, of a curve that was broken off; empty where it has none."""
    if recovery.fate == "finished" or recovery.predicted is None:
        return []
    likely = recovery.predicted
    ends = (recovery.predicted_low, recovery.predicted_high)
    values = [likely, *(likely if end is None else end for end in ends)]
    return values if all(map(math.isfinite, values)) else []


def _line(pairs: Sequence[tuple[float, float]], x: Axis, y: Axis | Nearness) -> str:
    return " ".join(f"{x.place(at):g},{y.place(value):g}" for at, value in pairs)


def _curve(
    number: int,
    recovery: Recovery,
    pairs: list[tuple[float, float]],
    x: Axis,
    y: Nearness,
    card: Card,
) -> Curve:
    kind = "chosen" if recovery.shape == card.shape else recovery.fate
    step, share = pairs[-1]
    title = f"{number}: {words.shape(recovery.shape)}, {words.fate(recovery)}"
    return Curve(number, kind, _line(pairs, x, y), x.place(step), y.place(share), None, title)


def _whisker(
    number: int, recovery: Recovery, x: float, y: Nearness, start: tuple[float, float] | None,
    text: bool,
) -> Whisker:  # fmt: skip
    likely, low, high = (y.place(value) for value in _forecast(recovery))
    link = f"M{start[0]:g} {start[1]:g}L{x:g} {likely:g}" if start else ""
    return Whisker(number, recovery.fate, round(x, 2), likely, low, high, link, text)


def _spread(curves: list[Curve], top: float, bottom: float) -> list[Curve]:
    """The curves with their numbers placed, so that those that end together do not overlap."""
    placed: dict[int, float] = {}
    numbered = curves[:NUMBERED]
    for curve in numbered:
        if curve.number in placed:
            continue
        group = sorted((each for each in numbered if abs(each.x - curve.x) < 14), key=lambda c: c.y)
        at = top
        for index, each in enumerate(group):
            left = len(group) - index - 1
            at = min(max(at, each.y + 4), bottom - APART * left)
            placed[each.number] = round(at, 1)
            at += APART
    return [replace(curve, text_y=placed.get(curve.number)) for curve in curves]
