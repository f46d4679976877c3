"""Bar and line charts over the days of a week, from 0 to 100, and pie charts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from PIL import Image, ImageDraw

from flyweight.demo.pictures import questions
from flyweight.demo.pictures.questions import DAYS
from flyweight.demo.pictures.scene import (
    FONTS,
    PAGE,
    Colour,
    Point,
    Scene,
    disc,
    jitter,
    mix,
    polar,
    write,
)

CORNERS: tuple[Point, ...] = ((0, 0), (PAGE, 0), (PAGE, PAGE), (0, PAGE))
TOP = 100  # of every value axis
STEP = 5  # values are multiples of it
LARGEST = 70  # share of a slice, in %
SERIES_TITLES = (
    "vibration", "pressure", "temperature", "output", "downtime", "noise", "load", "speed",
    "flow", "scrap", "faults", "energy",
)  # fmt: skip
PIE_TITLES = ("downtime", "energy", "faults", "scrap", "output", "orders")
PAPERS = ((255, 255, 255), (255, 255, 255), (248, 246, 238), (238, 242, 246), (236, 236, 236))
DARK_PAPERS = ((28, 30, 36), (14, 20, 38), (40, 40, 40))
FILLS = (
    (46, 96, 176), (214, 92, 30), (40, 140, 76), (190, 40, 48), (118, 72, 168), (20, 140, 150),
    (230, 160, 30), (90, 100, 112),
)  # fmt: skip
SLICES = {
    "red": (214, 34, 34), "blue": (38, 84, 204), "green": (40, 156, 62), "yellow": (250, 216, 40),
    "orange": (250, 132, 16), "purple": (126, 52, 168), "gray": (140, 142, 146),
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What the parts of one chart agree on."""

    paper: Colour
    ink: Colour
    grid: Colour
    fill: Colour
    font: str
    title: str | None


def look(rng: random.Random, titles: tuple[str, ...]) -> Look:
    """A chart's paper, inks and font; two in three have a title."""
    dark = rng.random() < 0.15
    paper = jitter(rng.choice(DARK_PAPERS if dark else PAPERS), rng, 3)
    ink = (236, 236, 236) if dark else (24, 26, 30)
    fill = jitter(rng.choice(FILLS), rng)
    return Look(
        paper=paper,
        ink=ink,
        grid=mix(paper, ink, rng.uniform(0.18, 0.34)),
        fill=mix(fill, (255, 255, 255), 0.3) if dark else fill,
        font=rng.choice(FONTS),
        title=rng.choice(titles) if rng.random() < 0.65 else None,
    )


@dataclass(frozen=True)
class Axes:
    """The rectangle between the axes, and where values and days lie in it."""

    left: float
    top: float
    right: float
    bottom: float
    count: int

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * value / TOP

    def x(self, place: float) -> float:
        return self.left + (self.right - self.left) * (place + 0.5) / self.count


def series_chart(rng: random.Random, kind: str) -> Scene:
    """A "bar" or "line" chart of three to seven days in a row, all values different."""
    style = look(rng, SERIES_TITLES)
    count = rng.randint(3, 7)
    first = rng.randint(0, 7 - count) if rng.random() < 0.4 else 0
    days = DAYS[first : first + count]
    values = rng.sample(range(STEP, TOP + 1, STEP), count)
    canvas = Image.new("RGB", (PAGE, PAGE), style.paper)
    draw = ImageDraw.Draw(canvas)
    top = 44 if style.title else rng.randint(16, 30)
    axes = Axes(rng.randint(46, 54), top, PAGE - rng.randint(8, 16), PAGE - 36, count)
    printed = frame(draw, axes, style, days, rng)
    (bars if kind == "bar" else line)(draw, axes, style, values, rng)
    if rng.random() < 0.12:
        face = (style.font, 18)
        for i, value in enumerate(values):
            above = 10 if kind == "bar" else 16
            at = axes.x(i), max(axes.y(value) - above, 10)
            box = (at[0] - 13, at[1] - 8, at[0] + 13, at[1] + 8)
            draw.rectangle(box, fill=style.paper)
            write(draw, at, str(value), style.ink, face, "mm")
    facts = {
        "kind": kind,
        "values": values,
        "days": list(days),
        "title": style.title,
    }
    points: dict[str, Point] = {
        f"value {i}": (axes.x(i), axes.y(value)) for i, value in enumerate(values)
    }
    points |= {f"base {i}": (axes.x(i), axes.bottom) for i in range(count)} | printed
    series: dict[str, int] = dict(zip(days, values, strict=True))
    asked = questions.about_series(rng, kind, series, style.title)
    return Scene(canvas, CORNERS, asked, facts, points, style.paper)


def frame(
    draw: ImageDraw.ImageDraw,
    axes: Axes,
    style: Look,
    days: tuple[str, ...],
    rng: random.Random,
) -> dict[str, Point]:
    """Axes, gridlines at every ten, numbers, the days' names and the title; where words stand."""
    face = (style.font, rng.randint(20, 22))
    labels = rng.choice((20, 20, 20, 50, 10 if axes.top < 32 else 20))
    if labels == 10:
        face = (style.font, 18)
    gridded = rng.random() < 0.8
    weak = mix(style.paper, style.grid, 0.45)
    printed: dict[str, Point] = {}
    for value in range(0, TOP + 1, 10):
        y = axes.y(value)
        labelled = value % labels == 0
        if gridded or labelled:
            colour = style.grid if labelled else weak
            draw.line((axes.left, y, axes.right, y), fill=colour, width=2 if labelled else 1)
        draw.line((axes.left - (8 if labelled else 5), y, axes.left, y), fill=style.ink, width=2)
        if labelled:
            write(draw, (axes.left - 10, y), str(value), style.ink, face, "rm")
            printed[f"word {value}"] = axes.left - 10 - 6 * len(str(value)), y
    if rng.random() < 0.3:
        for i in range(axes.count):
            draw.line((axes.x(i), axes.top, axes.x(i), axes.bottom), fill=weak, width=1)
    if rng.random() < 0.3:
        draw.rectangle((axes.left, axes.top, axes.right, axes.bottom), outline=style.ink, width=2)
    draw.line((axes.left, axes.top, axes.left, axes.bottom), fill=style.ink, width=2)
    draw.line((axes.left, axes.bottom, axes.right, axes.bottom), fill=style.ink, width=3)
    names = (style.font, 22 if axes.count < 6 else 20 if axes.count == 6 else 18)
    for i, day in enumerate(days):
        printed[f"word {day}"] = place = axes.x(i), axes.bottom + 19
        write(draw, place, day, style.ink, names, "mm")
    return printed | title(draw, style, (axes.left + axes.right) / 2, rng)


def title(
    draw: ImageDraw.ImageDraw, style: Look, middle: float, rng: random.Random
) -> dict[str, Point]:
    """The quantity above the chart, if it has a title, as people write titles; where it stands."""
    if style.title is None:
        return {}
    text = style.title.upper() if rng.random() < 0.2 else style.title.capitalize()
    write(draw, (middle, 20), text, style.ink, (style.font, rng.randint(23, 27)), "mm")
    return {f"word {style.title}": (middle, 20)}


def bars(
    draw: ImageDraw.ImageDraw, axes: Axes, style: Look, values: list[int], rng: random.Random
) -> None:
    """A bar a day: of one colour or of several, some with an outline."""
    half = (axes.right - axes.left) / axes.count * rng.uniform(0.26, 0.42)
    colours = [style.fill] * len(values)
    if rng.random() < 0.2:
        colours = [jitter(each, rng) for each in rng.sample(FILLS, len(values))]
    outline = mix(style.fill, style.ink, 0.6) if rng.random() < 0.3 else None
    for i, (value, colour) in enumerate(zip(values, colours, strict=True)):
        box = (axes.x(i) - half, axes.y(value), axes.x(i) + half, axes.bottom - 1)
        draw.rectangle(box, fill=colour, outline=outline, width=2)


def line(
    draw: ImageDraw.ImageDraw, axes: Axes, style: Look, values: list[int], rng: random.Random
) -> None:
    """Points joined by straight lines; some have the area below them shaded."""
    spots = [(axes.x(i), axes.y(value)) for i, value in enumerate(values)]
    width = rng.randint(3, 6)
    if rng.random() < 0.15:
        low = [(spots[-1][0], axes.bottom - 2), (spots[0][0], axes.bottom - 2)]
        draw.polygon(spots + low, fill=mix(style.paper, style.fill, 0.25))
    for one, other in pairwise(spots):
        draw.line((*one, *other), fill=style.fill, width=width)
    size = rng.uniform(1.1, 1.6) * width + 1.5
    square = rng.random() < 0.3
    hollow = rng.random() < 0.25
    for x, y in spots:
        if square:
            draw.rectangle((x - size, y - size, x + size, y + size), fill=style.fill)
        else:
            disc(draw, (x, y), size, style.fill)
        if hollow:
            disc(draw, (x, y), size * 0.5, style.paper)


@cache
def _shares(slices: int) -> tuple[tuple[int, ...], ...]:
    """All falling shares of that many slices: all different, the largest well ahead."""

    def falling(left: int, parts: int, most: int) -> list[tuple[int, ...]]:
        if parts == 1:
            return [(left,)] if STEP <= left <= most else []
        return [
            (share, *rest)
            for share in range(STEP, min(most, left) + 1, STEP)
            for rest in falling(left - share, parts - 1, share - STEP)
        ]

    return tuple(each for each in falling(TOP, slices, LARGEST) if each[0] - each[1] >= 2 * STEP)


def pie_chart(rng: random.Random) -> Scene:
    """A pie or ring of three to five slices with plain colours, and often marks to count by."""
    style = look(rng, PIE_TITLES)
    shares = list(rng.choice(_shares(rng.randint(3, 5))))
    rng.shuffle(shares)
    names = rng.sample(list(SLICES), len(shares))
    canvas = Image.new("RGB", (PAGE, PAGE), style.paper)
    draw = ImageDraw.Draw(canvas)
    help_ = rng.random()  # printed percents, a graduated rim, or nothing
    printed, marked = help_ < 0.4, 0.4 <= help_ < 0.8
    low = 26 if style.title else 0
    middle = (PAGE / 2, (PAGE + low) / 2)
    radius = rng.uniform(100, 108) if printed else rng.uniform(114, 122)
    start = rng.uniform(0, 360) if printed and rng.random() < 0.5 else 90.0
    slices(draw, style, middle, radius, start, dict(zip(names, shares, strict=True)), rng)
    if rng.random() < 0.2:
        disc(draw, middle, radius * rng.uniform(0.35, 0.55), style.paper)
    if marked:
        rim(draw, style, middle, radius)
    angles = _middles(shares, start)
    named: dict[str, Point] = {}
    if printed:
        face = (style.font, 22)
        for share, degrees in zip(shares, angles, strict=True):
            place = polar(middle, radius + 25, degrees)
            write(draw, place, f"{share}%", style.ink, face, "mm")
            named[f"word {share}%"] = place
    named |= title(draw, style, PAGE / 2, rng)
    facts = {
        "kind": "pie",
        "values": shares,
        "colours": names,
        "title": style.title,
        "printed": printed,
    }
    points = named | {
        f"value {i}": polar(middle, radius * 0.75, degrees) for i, degrees in enumerate(angles)
    }
    asked = questions.about_pie(rng, dict(zip(names, shares, strict=True)), style.title)
    return Scene(canvas, CORNERS, asked, facts, points, style.paper)


def _middles(shares: list[int], start: float) -> list[float]:
    """The angle of each slice's middle, in degrees; slices follow each other clockwise."""
    angles, at = [], start
    for share in shares:
        angles.append(at - share * 1.8)
        at -= share * 3.6
    return angles


def slices(
    draw: ImageDraw.ImageDraw,
    style: Look,
    middle: Point,
    radius: float,
    start: float,
    shares: dict[str, int],
    rng: random.Random,
) -> None:
    """The slices, clockwise from `start`, with thin lines of paper between them."""
    x, y = middle
    box = (x - radius, y - radius, x + radius, y + radius)
    at = start
    for name, share in shares.items():
        draw.pieslice(box, -at, -at + share * 3.6, fill=jitter(SLICES[name], rng, 10))
        at -= share * 3.6
    for share in shares.values():
        draw.line((x, y, *polar(middle, radius + 1, at)), fill=style.paper, width=3)
        at -= share * 3.6


def rim(draw: ImageDraw.ImageDraw, style: Look, middle: Point, radius: float) -> None:
    """Marks around a pie at every 5 %, longer at every 10 % and numbered at the quarters."""
    for percent in range(0, 100, STEP):
        degrees = 90 - percent * 3.6
        long = 13 if percent % 25 == 0 else 9 if percent % 10 == 0 else 5
        ends = (*polar(middle, radius + 4, degrees), *polar(middle, radius + 4 + long, degrees))
        draw.line(ends, fill=style.ink, width=2)
