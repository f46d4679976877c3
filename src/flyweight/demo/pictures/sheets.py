"""Sheets of printed words and lit numbers: what an encoder learns to read from.

A dial shows it a handful of numbers, a sheet some thirty, in the same fonts, sizes and light.
"""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from flyweight.demo.pictures import meters
from flyweight.demo.pictures.charts import PIE_TITLES, SERIES_TITLES
from flyweight.demo.pictures.designs import (
    DARK_FACES,
    DARK_INKS,
    LIGHT_FACES,
    LIGHT_INKS,
    SCALES,
)
from flyweight.demo.pictures.meters import LCDS, LEDS, Display
from flyweight.demo.pictures.questions import DAYS, number
from flyweight.demo.pictures.scene import FONTS, Point, Scene, jitter, write

SIDE = 280  # of a sheet, in canvas pixels
ROWS = 7
LIT = 0.25  # of the rows: displays
NUMBERS = tuple(dict.fromkeys(number(each) for scale in SCALES for each in scale.numbers))
UNITS = tuple(dict.fromkeys([*(scale.unit for scale in SCALES), *meters.UNITS]))
TITLES = tuple(dict.fromkeys([*SERIES_TITLES, *PIE_TITLES]))
TICKS = tuple(str(each) for each in range(0, 101, 10))
SHARES = tuple(f"{each}%" for each in range(5, 75, 5))
WORDS = tuple(dict.fromkeys([*NUMBERS, *TICKS, *SHARES, *UNITS, *DAYS, *TITLES]))


def sheet(rng: random.Random) -> Scene:
    """Rows of words, each anywhere in its place, now and then a row of lit or dark digits.

    `facts["words"]` and `facts["characters"]` are read at the points "word 0", "word 1"... and
    "character 0", "character 1"...
    """
    dark = rng.random() < 0.3
    face = jitter(rng.choice(DARK_FACES if dark else LIGHT_FACES), rng)
    ink = jitter(rng.choice(LIGHT_INKS if dark else DARK_INKS), rng)
    canvas = Image.new("RGB", (SIDE, SIDE), face)
    draw = ImageDraw.Draw(canvas)
    words: list[str] = []
    characters: list[str] = []
    points: dict[str, Point] = {}
    high = SIDE / ROWS
    for row in range(ROWS):
        if rng.random() < LIT:
            shown = "".join(rng.choices("0123456789-", k=rng.randint(5, 8)))
            for character, at in zip(shown, lit(draw, row * high, high, shown, rng), strict=True):
                points[f"character {len(characters)}"] = at
                characters.append(character)
            continue
        kind = rng.choices((NUMBERS, SHARES, UNITS, DAYS, TITLES), (8, 1, 2, 1, 1))[0]
        columns = 2 if kind is TITLES else rng.choice((4, 4, 5)) if kind is NUMBERS else 4
        style = rng.choice(FONTS), rng.randint(20, 26 if columns == 5 or kind is TITLES else 31)
        wide = SIDE / columns
        for column in range(columns):
            word = rng.choice(kind)
            room = max(0.0, wide / 2 - style[1] * 0.27 * len(word) - 2), high / 2 - style[1] * 0.4
            at = (
                (column + 0.5) * wide + rng.uniform(-1, 1) * room[0],
                (row + 0.5) * high + rng.uniform(-1, 1) * room[1],
            )
            write(draw, at, printed(word, rng), ink, style)
            points[f"word {len(words)}"] = at
            words.append(word)
    facts = {"kind": "sheet", "words": words, "characters": characters}
    corners: tuple[Point, ...] = ((0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE))
    return Scene(canvas, corners, (), facts, points)


def printed(word: str, rng: random.Random) -> str:
    """A word as it is printed: units in their spellings, titles in capitals."""
    if word in TITLES:
        return word.upper() if rng.random() < 0.2 else word.capitalize()
    spellings = meters.PRINTED.get(word, (word,))
    return rng.choice(spellings)


def lit(
    draw: ImageDraw.ImageDraw, top: float, high: float, shown: str, rng: random.Random
) -> list[Point]:
    """A row of seven-segment characters; the middle of each."""
    glows = rng.random() < 0.5
    window, digit = rng.choice(LEDS if glows else LCDS)
    draw.rectangle((0, top, SIDE, top + high), fill=window)
    room = 4.0, top + 3, SIDE - 4.0, top + high - 3
    display = Display(shown, len(shown), 0, "")
    cells = meters.number(draw, room, display, (window, digit), glows, rng)
    return [(sum(x for x, _ in cell) / 4, sum(y for _, y in cell) / 4) for cell in cells]


__all__ = ["WORDS", "sheet"]
