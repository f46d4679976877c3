"""A model's sticker as a picture: an SVG of 400 by 660 that can be read small, grey and aloud.

The template places what `view` words; here is what has to be worked out in pixels. Nothing is told
by colour alone, and `<desc>` says all that is drawn.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache

from jinja2 import Template

from flyweight.energy import sticker_text
from flyweight.energy.sticker_view import ALL, BRAND, NOT_KNOWN, SPLIT_OF, TITLE, view
from flyweight.figure import Figure
from flyweight.sticker_card import Sticker
from flyweight.templates import environment

WIDTH = 400
HEIGHT = 660
LEFT, RIGHT = 16.0, 384.0  # everything stands between them
_BARS = (116.0, 244.0)
_BIGGEST = 90.0  # of the headline
_GAP = 0.12  # after the number, in em
_BESIDE = 100.0  # what the unit, "per answer" and the range beside the number need
_THINNEST = 1.5  # pixels of a bar that is there at all


@dataclass(frozen=True)
class Headline:
    """The big number, its unit, and where the unit stands beside it."""

    number: str
    unit: str
    size: float
    unit_at: float


@dataclass(frozen=True)
class Bar:
    """A bar from the left up to `end`, None without a value, and a whisker over the range."""

    end: float | None
    low: float
    high: float


def sticker_svg(sticker: Sticker) -> str:
    """The sticker as the text of an SVG file, which loads and runs nothing.

    Names are cleaned and escaped; one that is too long to be drawn is cut, `<desc>` has it whole.
    """
    told = view(sticker)
    energy = sticker.joules
    return _template().render(
        view=told,
        # of its own, since several stickers may stand on one page
        key=hashlib.sha256(told.description.encode()).hexdigest()[:8],
        headline=_headline(told.facility.text),
        bars=_bars([energy.chip, energy.computer, energy.facility]),
        split=_split(sticker.reading, sticker.writing),
        tag=sticker_text.width(told.kind.upper(), 20, bold=True) + 24,
    )


def _headline(text: str) -> Headline:
    number, _, unit = text.rpartition(" ")
    em = sticker_text.width(number, 1, bold=True) + _GAP
    size = min(_BIGGEST, (RIGHT - LEFT - _BESIDE) / em)
    return Headline(number, unit, size, LEFT + size * em)


def _bars(figures: list[Figure]) -> list[Bar]:
    """All on one scale from zero, up to the highest that is thought possible."""
    start, end = _BARS
    told = [value for each in figures for value in (each.high, each.value or 0.0, each.low)]
    most = max((value for value in told if math.isfinite(value)), default=0.0) or 1.0

    def place(value: float) -> float:
        return start + min(1.0, value / most) * (end - start)

    return [
        Bar(
            None if each.value is None else max(place(each.value), start + _THINNEST),
            place(each.low),
            place(each.high),
        )
        for each in figures
    ]


def _split(reading: Figure, writing: Figure) -> float:
    """Where reading ends on a bar of both; each keeps a sliver that can be seen."""
    parts = [reading.middle, writing.middle]
    share = parts[0] / sum(parts) if sum(parts) else 0.5
    return LEFT + (RIGHT - LEFT) * min(max(share, 0.01), 0.99)


@cache
def _template() -> Template:
    found = environment("flyweight.energy")
    found.globals |= {
        "line": sticker_text.line,
        "wrap": sticker_text.wrap,
        "all": ALL,
        "brand": BRAND,
        "title": TITLE,
        "split_of": SPLIT_OF,
        "not_known": NOT_KNOWN,
        "left": LEFT,
        "right": RIGHT,
        "width": WIDTH,
        "height": HEIGHT,
    }
    return found.get_template("sticker.svg.j2")


__all__ = ["HEIGHT", "WIDTH", "sticker_svg"]
