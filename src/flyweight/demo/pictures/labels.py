"""What the drawing code knows of a picture, as labels of the patches that show it.

An image encoder that learns from scratch has to find a needle before a word about it can be
learned; told where things are and what they mean, it takes a small part of the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flyweight.demo.pictures.charts import SLICES, STEP
from flyweight.demo.pictures.designs import SCALES
from flyweight.demo.pictures.questions import DAYS
from flyweight.demo.pictures.sheets import TITLES, UNITS, WORDS

KINDS = ("gauge", "meter", "bar", "line", "pie", "sheet")
CHARACTERS = "0123456789-. "
COLOURS = tuple(SLICES)
POINTS = ("hub", "tip", "start", "end")  # of a gauge
PARTS = 100  # of a gauge's scale
LONGEST = 6  # characters of a reading
VALUES = 100 // STEP + 1

# What a patch may be asked, and how many answers there are.
ASKED = {
    "kind": len(KINDS),
    "word": len(WORDS),
    "character": len(CHARACTERS),
    "unit": len(UNITS),
    "scale": len(SCALES),
    "part": PARTS,
    **{f"reading {place}": len(CHARACTERS) for place in range(LONGEST)},
    "title": 1 + len(TITLES),
    "day": len(DAYS),
    "value": VALUES,
    **{f"{name} value": VALUES for name in ("highest", "lowest", "first", "last")},
    **{f"{name} day": len(DAYS) for name in ("highest", "lowest", "first", "last")},
    "colour": len(COLOURS),
    **{f"{name} colour": len(COLOURS) for name in ("highest", "lowest")},
    "count": 8,
}

Point = tuple[float, float]
Told = tuple[int, str, int]  # token, what is asked, answer


@dataclass(frozen=True)
class Labels:
    """Labels of one picture: (token, what is asked, answer), and the places of POINTS.

    Tokens are numbered as encoders do: 0 is the class token, then patches row by row. `points` are
    fractions of the picture, None of what is no gauge; `fraction` is where its needle stands.
    """

    told: tuple[Told, ...]
    points: tuple[Point, ...] | None
    fraction: float


def labels(facts: Mapping[str, Any], grid: int) -> Labels:
    """The labels of a picture whose encoder sees grid x grid patches."""
    kind, points = facts["kind"], facts["points"]
    told = [(0, "kind", KINDS.index(kind)), *printed(facts, grid)]
    if kind == "gauge":
        told += dial(facts, grid)
        places = tuple(tuple(points[name]) for name in POINTS)
        return Labels(tuple(told), places, facts["fraction"])
    if kind == "meter":
        told += [(0, "unit", UNITS.index(facts["unit"])), *reading(0, facts["written"])]
        for place, character in enumerate(facts["characters"]):
            corners = [points[f"cell {place} {corner}"] for corner in range(4)]
            middle = (sum(x for x, _ in corners) / 4, sum(y for _, y in corners) / 4)
            told.append((token(middle, grid), "character", CHARACTERS.index(character)))
    elif kind != "sheet":
        told += chart(facts, grid)
    return Labels(tuple(told), None, 0.0)


def printed(facts: Mapping[str, Any], grid: int) -> Iterator[Told]:
    """Words and lit characters where they stand; those of a sheet by their numbers."""
    for name, place in facts["points"].items():
        what, _, text = name.partition(" ")
        if what == "word":
            word = facts["words"][int(text)] if facts["kind"] == "sheet" else text
            yield token(place, grid), "word", WORDS.index(word)
        elif what == "character":
            character = facts["characters"][int(text)]
            yield token(place, grid), "character", CHARACTERS.index(character)


def dial(facts: Mapping[str, Any], grid: int) -> Iterator[Told]:
    """A gauge's scale and reading, told by the hub and the picture, and along the needle."""
    (x, y), (to_x, to_y) = facts["points"]["hub"], facts["points"]["tip"]
    part = min(PARTS - 1, int(facts["fraction"] * PARTS))
    for place in (0, token((x, y), grid)):
        yield place, "scale", facts["scale"]
        yield place, "unit", UNITS.index(facts["unit"])
        yield from reading(place, facts["written"])
        yield place, "part", part
    for along in (0.35, 0.7, 1.0):
        yield token((x + along * (to_x - x), y + along * (to_y - y)), grid), "part", part


def reading(place: int, written: str) -> Iterator[Told]:
    """What is read, a character at a time."""
    for number, character in enumerate(written.ljust(LONGEST)):
        yield place, f"reading {number}", CHARACTERS.index(character)


def chart(facts: Mapping[str, Any], grid: int) -> Iterator[Told]:
    """A chart's values where they are drawn; its extremes and its title by the picture."""
    values, points = facts["values"], facts["points"]
    title = facts["title"]
    yield 0, "title", 0 if title is None else 1 + TITLES.index(title)
    yield 0, "count", len(values)
    pie = facts["kind"] == "pie"
    named = facts["colours"] if pie else facts["days"]
    what, names = ("colour", COLOURS) if pie else ("day", DAYS)
    numbers = [names.index(each) for each in named]
    for place, value in enumerate(values):
        shown = token(points[f"value {place}"], grid)
        below = shown if pie else token(points[f"base {place}"], grid)
        yield shown, "value", value // STEP
        if not pie:
            yield below, "value", value // STEP
        yield below, what, numbers[place]
    ends = {"highest": values.index(max(values)), "lowest": values.index(min(values))}
    for name, place in (ends if pie else ends | {"first": 0, "last": len(values) - 1}).items():
        yield 0, f"{name} {what}", numbers[place]
        if not pie:
            yield 0, f"{name} value", values[place] // STEP


def token(point: Point, grid: int) -> int:
    """The token of the patch that holds a point (fractions of the picture)."""
    column, row = (min(grid - 1, max(0, int(part * grid))) for part in point)
    return 1 + row * grid + column


__all__ = ["ASKED", "PARTS", "POINTS", "Labels", "labels", "token"]
