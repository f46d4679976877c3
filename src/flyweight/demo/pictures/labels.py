"""What the drawing code knows of a picture, as labels of the patches that show it.

An image encoder that learns from scratch has to find a needle before a word about it can be
learned; told where things are, it takes a small part of the pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyweight.demo.pictures.charts import PIE_TITLES, SERIES_TITLES, SLICES, STEP
from flyweight.demo.pictures.designs import SCALES
from flyweight.demo.pictures.meters import UNITS
from flyweight.demo.pictures.questions import DAYS, number

KINDS = ("gauge", "meter", "bar", "line", "pie")
ALL_UNITS = tuple(dict.fromkeys([*(scale.unit for scale in SCALES), *UNITS]))
TITLES = (None, *dict.fromkeys([*SERIES_TITLES, *PIE_TITLES]))
NUMBERS = tuple(dict.fromkeys(number(each) for scale in SCALES for each in scale.numbers))
CHARACTERS = "0123456789- "
COLOURS = tuple(SLICES)
POINTS = ("hub", "tip", "start", "end")  # of a gauge
PARTS = 100  # of a gauge's scale

# What a patch may be asked, and how many answers there are.
ASKED = {
    "kind": len(KINDS),
    "scale": len(SCALES),
    "part": PARTS,
    "number": len(NUMBERS),
    "unit": len(ALL_UNITS),
    "decimals": 5,
    "title": len(TITLES),
    "character": len(CHARACTERS),
    "day": len(DAYS),
    "value": 100 // STEP + 1,
    "colour": len(COLOURS),
}


@dataclass(frozen=True)
class Labels:
    """Labels of one picture: (token, what is asked, answer), and the places of POINTS.

    Tokens are numbered as encoders do: 0 is the class token, then patches row by row. `points` are
    fractions of the picture, None of what is no gauge; `fraction` is where its needle stands.
    """

    told: tuple[tuple[int, str, int], ...]
    points: tuple[tuple[float, float], ...] | None
    fraction: float


def labels(facts: Mapping[str, Any], grid: int) -> Labels:
    """The labels of a picture whose encoder sees grid x grid patches."""
    points = facts["points"]
    told = [(0, "kind", KINDS.index(facts["kind"]))]
    if facts["kind"] == "gauge":
        part = min(PARTS - 1, int(facts["fraction"] * PARTS))
        hub, tip = (token(points[name], grid) for name in ("hub", "tip"))
        told += [
            (hub, "scale", facts["scale"]),
            (hub, "unit", ALL_UNITS.index(facts["unit"])),
            (hub, "part", part),
            (tip, "part", part),
        ]
        told += [
            (token(place, grid), "number", NUMBERS.index(name.removeprefix("number ")))
            for name, place in points.items()
            if name.startswith("number ")
        ]
        places = tuple(tuple(points[name]) for name in POINTS)
        return Labels(tuple(told), places, facts["fraction"])
    if facts["kind"] == "meter":
        told += [(0, "unit", ALL_UNITS.index(facts["unit"])), (0, "decimals", facts["decimals"])]
        for place, character in enumerate(facts["characters"]):
            corners = [points[f"cell {place} {corner}"] for corner in range(4)]
            middle = (sum(x for x, _ in corners) / 4, sum(y for _, y in corners) / 4)
            told.append((token(middle, grid), "character", CHARACTERS.index(character)))
        return Labels(tuple(told), None, 0.0)
    told.append((0, "title", TITLES.index(facts["title"])))
    for place, value in enumerate(facts["values"]):
        shown = token(points[f"value {place}"], grid)
        told.append((shown, "value", value // STEP))
        if facts["kind"] == "pie":
            told.append((shown, "colour", COLOURS.index(facts["colours"][place])))
        else:
            below = token(points[f"base {place}"], grid)
            told += [(below, "value", value // STEP)]
            told += [(below, "day", DAYS.index(facts["days"][place]))]
    return Labels(tuple(told), None, 0.0)


def token(point: tuple[float, float], grid: int) -> int:
    """The token of the patch that holds a point (fractions of the picture)."""
    column, row = (min(grid - 1, max(0, int(part * grid))) for part in point)
    return 1 + row * grid + column


__all__ = ["ASKED", "PARTS", "POINTS", "Labels", "labels", "token"]
