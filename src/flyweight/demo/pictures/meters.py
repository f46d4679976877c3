"""Digital meters: seven-segment digits, lit (LED) or dark (LCD), in a housing with the unit."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import ImageDraw

from flyweight.demo.pictures import questions
from flyweight.demo.pictures.scene import (
    CANVAS,
    FONTS,
    Colour,
    Point,
    Scene,
    disc,
    jitter,
    mix,
    screw,
    wall,
    write,
)

HALF = 150.0  # half the housing's width, in canvas pixels
SEGMENTS = {  # which of a (top), b, c, d (bottom), e, f, g (middle) are on
    "0": "abcdef", "1": "bc", "2": "abdeg", "3": "abcdg", "4": "bcfg", "5": "acdfg",
    "6": "acdefg", "7": "abc", "8": "abcdefg", "9": "abcdfg", "-": "g", " ": "",
}  # fmt: skip
# unit: most places, and decimals that fit it
UNITS = {
    "bar": (4, (1, 2)), "psi": (4, (0, 1)), "C": (4, (1,)), "mm/s": (4, (1, 2)),
    "rpm": (5, (0,)), "A": (4, (1, 2)), "V": (4, (0, 1)), "kW": (5, (1, 2)), "Hz": (4, (1, 2)),
    "kPa": (5, (0, 1)), "L/min": (5, (0, 1)),
}  # fmt: skip
SIGNED = ("C", "V", "A")
PRINTED = {"C": ("°C", "°C", "C"), "psi": ("psi", "PSI"), "rpm": ("rpm", "RPM")}
LABELS = ("PUMP 1", "LINE 2", "INPUT", "PV", "TANK", "SUPPLY", "CH 1", "MAIN", "PT-104", "TT-21")
BODIES = (
    (34, 36, 40),
    (58, 62, 68),
    (206, 206, 200),
    (120, 126, 132),
    (226, 190, 40),
    (36, 60, 104),
)
# lit: window, digit; dark: window, digit
LEDS = (
    ((22, 8, 8), (255, 48, 36)), ((8, 20, 10), (70, 255, 90)), ((24, 16, 6), (255, 170, 30)),
    ((8, 12, 26), (90, 180, 255)), ((14, 14, 16), (240, 244, 250)),
)  # fmt: skip
LCDS = (
    ((158, 170, 142), (24, 28, 26)), ((184, 194, 178), (30, 32, 34)),
    ((200, 204, 200), (16, 18, 20)), ((150, 196, 90), (20, 34, 14)),
    ((40, 84, 190), (236, 244, 255)),
)  # fmt: skip


@dataclass(frozen=True)
class Display:
    """What a display shows: `text` has a sign, digits and a decimal point; `places` is its room."""

    text: str
    places: int
    decimals: int
    unit: str

    @property
    def characters(self) -> str:
        """One character a place, blanks in front; the point belongs to none."""
        return self.text.replace(".", "").rjust(self.places)

    @property
    def span(self) -> float:
        """The largest reading and a step: what the display can tell apart is a part of this."""
        return 10.0 ** (self.places - self.decimals)


def display(rng: random.Random) -> Display:
    """A reading of two digits or more on a display with three to five places."""
    unit = rng.choice(list(UNITS))
    most, choices = UNITS[unit]
    decimals = rng.choice(choices)
    places = rng.randint(max(3, decimals + 2), most)
    negative = unit in SIGNED and rng.random() < 0.25
    least = max(2, decimals + 1)
    digits = max(least, places - negative - rng.choice((0, 0, 0, 1, 1, 2)))
    lowest = 10 ** (digits - 1) if digits > decimals + 1 else 1
    count = rng.randrange(lowest, 10**digits)
    text = f"{count / 10**decimals:.{decimals}f}"
    return Display("-" * negative + text, places, decimals, unit)


def meter(rng: random.Random) -> Scene:
    """A digital meter on a wall or in a panel."""
    shown = display(rng)
    canvas = wall(rng)
    draw = ImageDraw.Draw(canvas)
    lit = rng.random() < 0.5
    window, digit = rng.choice(LEDS if lit else LCDS)
    window, digit = jitter(window, rng, 6), jitter(digit, rng, 10)
    inside = rng.random() < 0.4  # the unit stands in the window
    outline, box, body = housing(draw, rng)
    draw.rounded_rectangle(
        (box[0] - 4, box[1] - 4, box[2] + 4, box[3] + 4), 6, fill=mix(body, (0, 0, 0), 0.6)
    )
    draw.rectangle(box, fill=window)
    unit = rng.choice(PRINTED.get(shown.unit, (shown.unit,)))
    place = lettering(draw, box, body, unit, (window, digit) if inside else None, rng)
    cells = number(draw, _room(box, inside, unit), shown, (window, digit), lit, rng)
    reading = float(shown.text)
    facts = {
        "kind": "meter",
        "reading": reading,
        "written": shown.text,
        "unit": shown.unit,
        "digits": shown.text.replace(".", "").removeprefix("-"),
        "characters": shown.characters,
        "decimals": shown.decimals,
        "places": shown.places,
    }
    points = {
        f"cell {i} {j}": corner for i, cell in enumerate(cells) for j, corner in enumerate(cell)
    } | {f"word {shown.unit}": place}
    asked = questions.about_meter(rng, reading, shown.text, shown.span, shown.unit)
    return Scene(canvas, outline, asked, facts, points)


Box = tuple[float, float, float, float]


def housing(draw: ImageDraw.ImageDraw, rng: random.Random) -> tuple[tuple[Point, ...], Box, Colour]:
    """The body with its shadow; returns its corners, the window's box and its colour."""
    x = y = CANVAS / 2
    high = rng.uniform(78, 125)
    body = jitter(rng.choice(BODIES), rng)
    round_ = rng.uniform(2, 24)
    slide = rng.uniform(4, 12)
    draw.rounded_rectangle(
        (x - HALF + slide, y - high + slide, x + HALF + slide, y + high + slide), round_,
        fill=(20, 20, 22),
    )  # fmt: skip
    outer = (x - HALF, y - high, x + HALF, y + high)
    draw.rounded_rectangle(outer, round_, fill=body, outline=mix(body, (0, 0, 0), 0.5), width=3)
    inner = (outer[0] + 5, outer[1] + 5, outer[2] - 5, outer[3] - 5)
    draw.rounded_rectangle(inner, round_, outline=mix(body, (255, 255, 255), 0.25), width=2)
    if rng.random() < 0.35:
        for across in (-1, 1):
            for down in (-1, 1):
                screw(draw, (x + across * (HALF - 13), y + down * (high - 13)), 6, rng)
    top = y - high + rng.uniform(26, 36)
    tall = rng.uniform(86, 106)
    bottom = min(top + tall, y + high - 34)
    side = HALF - rng.uniform(14, 22)
    if high > 100 and rng.random() < 0.7:  # buttons
        key = jitter(rng.choice(((30, 30, 32), (200, 200, 200), (170, 40, 36), (60, 90, 150))), rng)
        for i in range(rng.randint(2, 4)):
            left = x - HALF + 26 + 36 * i
            draw.rounded_rectangle((left, y + high - 32, left + 26, y + high - 14), 5, fill=key)
    corners = [(x + across * HALF, y + down * high) for across in (-1, 1) for down in (-1, 1)]
    return tuple(corners), (x - side, top, x + side, bottom), body


def _room(box: Box, inside: bool, unit: str) -> Box:
    """The part of the window that the number may fill."""
    right = (18 + 13 * len(unit)) if inside else 0
    return box[0] + 8, box[1] + 9, box[2] - 8 - right, box[3] - 9


def lettering(
    draw: ImageDraw.ImageDraw,
    box: Box,
    body: Colour,
    unit: str,
    inside: tuple[Colour, Colour] | None,
    rng: random.Random,
) -> Point:
    """The unit, beside the number or on the body, whose middle it gives; on some a label above."""
    ink = (16, 16, 18) if sum(body) > 330 else (236, 236, 236)
    name = rng.choice(FONTS)
    if inside:
        face = (name, 26)
        at = box[2] - 8, box[3] - rng.uniform(8, 30)
        write(draw, at, unit, inside[1], face, "rs")
        middle = at[0] - 6 * len(unit), at[1] - 9
    else:
        at = box[2] - 2, box[3] + 7
        write(draw, at, unit, ink, (name, rng.randint(24, 27)), "rt")
        middle = at[0] - 6 * len(unit), at[1] + 11
    if rng.random() < 0.6:
        at = (box[0] + box[2]) / 2, box[1] - 14
        write(draw, at, rng.choice(LABELS), ink, (name, rng.randint(14, 18)), "mm")
    if rng.random() < 0.3:
        lamp = rng.choice(((240, 40, 40), (60, 230, 80), (250, 190, 40)))
        disc(draw, (box[0] + 12, box[1] - 13), 5, lamp)
    return middle


def number(
    draw: ImageDraw.ImageDraw,
    room: Box,
    shown: Display,
    colours: tuple[Colour, Colour],
    lit: bool,
    rng: random.Random,
) -> list[list[Point]]:
    """Draw what is shown; returns each place's corners (clockwise from the top left)."""
    window, digit = colours
    pitch = (room[2] - room[0]) / (shown.places + 0.2)
    width = pitch * rng.uniform(0.66, 0.74)
    height = min(width * rng.uniform(1.6, 2.1), room[3] - room[1])
    thick = width * rng.uniform(0.16, 0.23)
    slant = rng.choice((0.0, 0.0, 0.09, 0.14))
    top = (room[1] + room[3] - height) / 2
    off = mix(window, digit, rng.choice((0.0, 0.05, 0.1)))
    halo = mix(window, digit, 0.25) if lit else None
    cells = []
    for i, character in enumerate(shown.characters):
        left = room[0] + pitch * (i + 0.2)
        cell = [
            (left + slant * height, top), (left + width + slant * height, top),
            (left + width, top + height), (left, top + height),
        ]  # fmt: skip
        cells.append(cell)
        segments(draw, cell, thick, SEGMENTS[character], (digit, off, halo))
        if shown.decimals and i == shown.places - 1 - shown.decimals:
            at = left + width + (pitch - width) * 0.5, top + height - thick * 0.6
            if halo:
                disc(draw, at, thick * 0.8, halo)
            disc(draw, at, thick * 0.62, digit)
    return cells


def segments(
    draw: ImageDraw.ImageDraw,
    cell: list[Point],
    thick: float,
    on: str,
    colours: tuple[Colour, Colour, Colour | None],
) -> None:
    """One character: every segment in the colour for on or off, those that are on with a halo."""
    digit, off, halo = colours
    (x0, y0), (x1, _), (_, y1), (x3, _) = cell
    slant, width, height = (x0 - x3) / (y1 - y0), x1 - x0, y1 - y0
    half = thick / 2
    left, right, top, bottom = half, width - half, half, height - half
    middle = height / 2
    ends = {
        "a": (left, top, right, top), "g": (left, middle, right, middle),
        "d": (left, bottom, right, bottom), "f": (left, top, left, middle),
        "b": (right, top, right, middle), "e": (left, middle, left, bottom),
        "c": (right, middle, right, bottom),
    }  # fmt: skip

    def stroke(name: str, wide: float, colour: Colour) -> None:
        ax, ay, bx, by = ends[name]
        gap = half * 0.25
        if ay == by:
            ax, bx = ax + gap, bx - gap
            shape = [(ax, ay), (ax + wide, ay - wide), (bx - wide, ay - wide), (bx, ay),
                     (bx - wide, ay + wide), (ax + wide, ay + wide)]  # fmt: skip
        else:
            ay, by = ay + gap, by - gap
            shape = [(ax, ay), (ax + wide, ay + wide), (ax + wide, by - wide), (ax, by),
                     (ax - wide, by - wide), (ax - wide, ay + wide)]  # fmt: skip
        draw.polygon([(x3 + x + slant * (height - y), y0 + y) for x, y in shape], fill=colour)

    for name in ends:
        if name not in on:
            stroke(name, half, off)
    if halo:
        for name in on:
            stroke(name, half + 3, halo)
    for name in on:
        stroke(name, half, digit)
