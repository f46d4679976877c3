"""Analog dial gauges, each of a new design: a scale, its numbers, a needle on a hub."""

from __future__ import annotations

import math
import random
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from flyweight.demo.pictures import questions
from flyweight.demo.pictures.designs import RADIUS, SCALES, Design, design
from flyweight.demo.pictures.scene import (
    CANVAS,
    FONTS,
    Colour,
    Point,
    Scene,
    disc,
    jitter,
    mix,
    polar,
    screw,
    wall,
    write,
)

MIDDLE: Point = (CANVAS / 2, CANVAS / 2)
RINGS = 18
OUTLINE = tuple(polar(MIDDLE, RADIUS, degrees) for degrees in range(0, 360, 30))

PRINTED = {"bar": ("bar",), "psi": ("psi", "PSI"), "C": ("°C", "°C", "C"), "mm/s": ("mm/s",)}
MAKERS = (
    "NORDEN", "Kessler", "VULKA", "Tamar & Co", "HYDRA", "Ostrow", "MERIDIAN", "Halvorsen",
    "PRAXA", "ELBE", "Corvin", "STRATUM", "Lindqvist", "OMEGON",
)  # fmt: skip
MARKS = ("CL 1.6", "CL 1.0", "CL 2.5", "EN 837-1", "316 SS", "IP65", "No. {n}", "MADE IN EU")
RED, AMBER, GREEN = (214, 36, 30), (240, 180, 20), (40, 150, 60)


def gauge(rng: random.Random, fraction: float | None = None) -> Scene:
    """A gauge on a wall; its needle stands anywhere on the scale, or at `fraction` of it."""
    dial = design(rng)
    drawn = rng.random()
    fraction = drawn if fraction is None else fraction
    canvas = wall(rng)
    draw = ImageDraw.Draw(canvas)
    housing(canvas, draw, dial, rng)
    zones(draw, dial, rng)
    printed = ticks(draw, dial, rng) | lettering(draw, dial, rng)
    tip = needle(draw, dial, fraction, rng)
    scale = dial.scale
    reading = scale.at(fraction)
    facts = {
        "kind": "gauge",
        "reading": reading,
        "fraction": fraction,
        "scale": SCALES.index(scale),
        "low": scale.low,
        "high": scale.high,
        "unit": scale.unit,
        "written": scale.write(reading),
        "sweep": math.radians(dial.sweep),
    }
    points = {
        "hub": MIDDLE,
        "tip": tip,
        "start": polar(MIDDLE, dial.rim, dial.angle(0)),
        "end": polar(MIDDLE, dial.rim, dial.angle(1)),
        **printed,
    }
    asked = questions.about_gauge(rng, reading, facts["written"], scale.low, scale.high, scale.unit)
    return Scene(canvas, OUTLINE, asked, facts, points)


def housing(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, dial: Design, rng: random.Random
) -> None:
    """The body with its shadow, the stem, the ring, and the empty face."""
    x, y = MIDDLE
    slide = rng.uniform(3, 14) * rng.choice((-1, 1))
    metal = jitter(
        rng.choice(((176, 176, 180), (184, 146, 78), (70, 72, 76), (196, 198, 200))), rng
    )
    if rng.random() < 0.5:  # the stem
        half = rng.uniform(14, 30)
        for i, shade in enumerate((0.5, 0.85, 1.0, 0.8, 0.45)):
            left = x - half + i * half * 0.4
            draw.rectangle(
                (left, y, left + half * 0.4, CANVAS), fill=mix((10, 10, 10), metal, shade)
            )
    square = rng.random() < 0.2
    corners = (x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS)
    if square:
        body = jitter(rng.choice(((40, 42, 46), (90, 96, 104), (190, 190, 186), (30, 60, 96))), rng)
        draw.rounded_rectangle(
            corners, rng.uniform(4, 26), fill=body, outline=mix(body, (0, 0, 0), 0.5)
        )
        for across in (-1, 1):
            for down in (-1, 1):
                at = x + across * RADIUS * 0.88, y + down * RADIUS * 0.88
                screw(draw, at, rng.uniform(6, 8), rng)
    else:
        disc(draw, (x + slide, y + rng.uniform(3, 12)), RADIUS + 2, (22, 22, 24))
        ring, mask = _ring(rng.randrange(RINGS))
        canvas.paste(ring, (round(x - ring.width / 2), round(y - ring.height / 2)), mask)
    disc(draw, MIDDLE, dial.radius + 2, mix(dial.face, (0, 0, 0), 0.75))
    disc(draw, MIDDLE, dial.radius, mix(dial.face, (0, 0, 0), 0.25))
    disc(draw, (x, y + 1.5), dial.radius - 2.5, dial.face)


@cache
def _ring(number: int) -> tuple[Image.Image, Image.Image]:
    """A bezel and its mask; a polished ring shines in some directions."""
    rng = random.Random(f"ring/{number}")
    colours = ((205, 205, 208), (205, 205, 208), (192, 152, 84), (28, 28, 30), (150, 30, 28),
               (32, 58, 110), (110, 112, 116))  # fmt: skip
    base = np.array(rng.choice(colours), np.float64)
    side = 2 * int(RADIUS) + 4
    steps = np.arange(side) - (side - 1) / 2
    angle = np.arctan2(steps[:, None], steps[None, :])
    distance = np.hypot(steps[:, None], steps[None, :])
    shine = 0.78 + rng.uniform(0.05, 0.3) * np.cos(
        rng.choice((1, 2, 3)) * (angle - rng.uniform(0, 6))
    )
    shine += rng.uniform(0.05, 0.22) * np.cos((distance - RADIUS + rng.uniform(0, 20)) / 3.2)
    colour = np.clip(base * shine[:, :, None], 0, 255).astype(np.uint8)
    mask = np.clip(RADIUS - distance + 0.5, 0, 1) * 255
    return Image.fromarray(colour), Image.fromarray(mask.astype(np.uint8))


def zones(draw: ImageDraw.ImageDraw, dial: Design, rng: random.Random) -> None:
    """On some dials coloured bands: red at an end, or green, amber and red."""
    kind = rng.random()
    high, low = rng.uniform(0.65, 0.9), rng.uniform(0.1, 0.3)
    if kind < 0.2:
        bands = [(high, 1.0, RED)]
    elif kind < 0.28:
        bands = [(0.0, low, RED)]
    elif kind < 0.4:
        bands = [(0.0, high - 0.2, GREEN), (high - 0.2, high, AMBER), (high, 1.0, RED)]
    elif kind < 0.46:
        bands = [(low, high, GREEN)]
    else:
        return
    width = rng.randint(5, 12)
    radius = dial.rim - (4 if dial.outward else -4) + (0 if dial.outward else rng.uniform(-8, 0))
    radius = min(radius, dial.radius - 4)
    box = (MIDDLE[0] - radius, MIDDLE[1] - radius, MIDDLE[0] + radius, MIDDLE[1] + radius)
    for first, last, colour in bands:
        draw.arc(box, -dial.angle(first), -dial.angle(last), fill=jitter(colour, rng), width=width)


def bar(
    draw: ImageDraw.ImageDraw, near: float, far: float, degrees: float, width: float, fill: Colour
) -> None:
    """A straight stroke along a radius, from one distance to another."""
    turn = math.radians(degrees)
    c, s = math.cos(turn), math.sin(turn)
    x, y = MIDDLE
    over, up = width / 2 * s, width / 2 * c  # sideways
    (ax, ay), (bx, by) = (x + near * c, y - near * s), (x + far * c, y - far * s)
    corners = (ax - over, ay - up, ax + over, ay + up, bx + over, by + up, bx - over, by - up)
    draw.polygon(corners, fill=fill)


def ticks(draw: ImageDraw.ImageDraw, dial: Design, rng: random.Random) -> dict[str, Point]:
    """The scale: long ticks with numbers, the first and the last among them, and short ones.

    Gives the places of the numbers.
    """
    scale = dial.scale
    apart, parts = rng.choice(_roomy(dial))
    majors = round((scale.high - scale.low) / apart)
    way = 1 if dial.outward else -1
    long, short = dial.radius * rng.uniform(0.12, 0.17), dial.radius * rng.uniform(0.05, 0.08)
    if dial.outward:
        long, short = long * 0.6, short * 0.7
    thick, thin = rng.uniform(2.4, 4.5), rng.uniform(0.8, 1.8)
    if rng.random() < 0.55:
        box = (
            MIDDLE[0] - dial.rim,
            MIDDLE[1] - dial.rim,
            MIDDLE[0] + dial.rim,
            MIDDLE[1] + dial.rim,
        )
        draw.arc(box, -dial.angle(0), -dial.angle(1), fill=dial.ink, width=rng.randint(2, 4))
    for i in range(majors * parts + 1):
        if i % parts == 0:
            length, width = long, thick
        elif 2 * i % parts == 0:
            length, width = (long + short) / 2, (thick + thin) / 2
        else:
            length, width = short, thin
        degrees = dial.angle(i / (majors * parts))
        bar(draw, dial.rim, dial.rim + way * length, degrees, width, dial.ink)
    size = rng.randint(26, 31) if majors <= 6 and not dial.outward else rng.randint(22, 25)
    face = (dial.font, size)
    printed: dict[str, Point] = {}
    for i in range(majors + 1):
        text = questions.number(scale.low + i * apart)
        gap = 4 + size * (0.42 + 0.13 * (len(text) - 1))
        at = polar(MIDDLE, dial.rim + way * (long + gap), dial.angle(i / majors))
        write(draw, at, text, dial.ink, face)
        printed[f"word {text}"] = at
    return printed


def _roomy(dial: Design) -> list[tuple[float, int]]:
    """The scale's layouts whose numbers stand well apart on this dial."""
    scale = dial.scale
    least = 24 + 4 * len(questions.number(scale.high))  # degrees
    span = dial.sweep * (scale.high - scale.low) ** -1
    return [each for each in scale.layouts if each[0] * span >= least] or [
        max(scale.layouts, key=lambda each: each[0])
    ]


def lettering(draw: ImageDraw.ImageDraw, dial: Design, rng: random.Random) -> dict[str, Point]:
    """The unit, and on some dials a maker's name, marks and screws; gives the unit's place."""
    x, y = MIDDLE
    half_circle = dial.sweep < 215
    below = dial.radius * (rng.uniform(0.3, 0.5) if half_circle else rng.uniform(0.3, 0.4))
    above = -dial.radius * rng.uniform(0.24, 0.29)
    unit_below = half_circle or rng.random() < 0.7
    unit = rng.choice(PRINTED[dial.scale.unit])
    unit_font = (dial.font, rng.randint(24, 30))
    place = x, y + (below if unit_below else above)
    write(draw, place, unit, dial.ink, unit_font)
    faint = mix(dial.face, dial.ink, rng.uniform(0.5, 0.9))
    small = (rng.choice(FONTS), rng.randint(13, 17))
    if rng.random() < 0.6:
        where = above if unit_below else below
        write(draw, (x, y + where), rng.choice(MAKERS), faint, small)
    if rng.random() < 0.35:
        mark = rng.choice(MARKS).format(n=rng.randint(1000, 99999))
        where = dial.radius * (rng.uniform(0.66, 0.78) if half_circle else 0.56)
        write(draw, (x, y + where), mark, faint, (dial.font, 12))
    if rng.random() < 0.25:
        for degrees in (270 - 56, 270 + 56) if half_circle else (180, 0):
            screw(
                draw,
                polar(MIDDLE, dial.radius * (0.6 if half_circle else 0.4), degrees),
                rng.uniform(4, 6),
                rng,
            )
    return {f"word {dial.scale.unit}": place}


def needle(draw: ImageDraw.ImageDraw, dial: Design, fraction: float, rng: random.Random) -> Point:
    """The needle with its shadow, its tail and the hub, rarely a marker; returns its tip."""
    inner = dial.rim if dial.outward else dial.rim - dial.radius * 0.15
    length = inner + dial.radius * rng.uniform(-0.06, 0.1)
    tail = dial.radius * rng.choice((0.0, rng.uniform(0.15, 0.34)))
    thick = rng.uniform(3.0, 5.5)
    shape = _outline(rng.choice(("thin", "tapered", "tapered", "arrow", "lance")), length, thick)
    weight = rng.choice(("plain", "plain", "paddle", "disc"))
    hub = rng.uniform(8, 17)
    cap = jitter(
        rng.choice((dial.needle, dial.ink, (30, 30, 32), (170, 170, 172), (184, 150, 80))), rng
    )
    degrees = dial.angle(fraction)
    marker, red = rng.random() < 0.07, dial.needle[0] > 180 and dial.needle[1] < 110
    at = rng.uniform(0.6, 1.0)
    if marker and not red:
        bar(draw, dial.radius * 0.66, dial.radius * 0.98, dial.angle(at), 3.5, RED)
    drop = rng.uniform(1.5, 5)
    for offset, colour in ((drop, mix(dial.face, (0, 0, 0), 0.3)), (0.0, dial.needle)):
        middle = MIDDLE[0] + offset * 0.6, MIDDLE[1] + offset
        if tail:
            ends = [(-tail, 4.0 + thick * (weight == "paddle")), (0.0, thick)]
            shape_tail = [(r, -s) for r, s in ends] + [(r, s) for r, s in reversed(ends)]
            draw.polygon(_place(shape_tail, middle, degrees), fill=colour)
            if weight == "disc":
                disc(draw, polar(middle, -tail, degrees), 2 * thick, colour)
        draw.polygon(_place(shape, middle, degrees), fill=colour)
        disc(draw, middle, hub, colour if offset else mix(cap, (0, 0, 0), 0.45))
    disc(draw, MIDDLE, hub - 1.5, cap)
    if rng.random() < 0.5:
        disc(
            draw,
            (MIDDLE[0] - hub * 0.2, MIDDLE[1] - hub * 0.25),
            hub * 0.4,
            mix(cap, (255, 255, 255), 0.35),
        )
    return polar(MIDDLE, length, degrees)


def _outline(kind: str, length: float, thick: float) -> list[Point]:
    """A needle that points along x from the origin: distances along it and half widths."""
    if kind == "thin":
        edge = [(0.0, thick * 0.55), (length - 6, thick * 0.55), (length, 0.4)]
    elif kind == "tapered":
        edge = [(0.0, thick * 1.3), (length, 0.6)]
    elif kind == "arrow":
        head = length * 0.8
        edge = [(0.0, thick * 0.6), (head, thick * 0.6), (head - 3, thick * 2.0), (length, 0.4)]
    else:
        edge = [
            (0.0, thick * 0.5),
            (length * 0.55, thick * 0.5),
            (length * 0.7, thick * 1.5),
            (length, 0.4),
        ]
    return [(r, -s) for r, s in edge] + [(r, s) for r, s in reversed(edge)]


def _place(shape: list[Point], middle: Point, degrees: float) -> list[Point]:
    turn = math.radians(degrees)
    c, s = math.cos(turn), math.sin(turn)
    return [(middle[0] + r * c + w * s, middle[1] - r * s + w * c) for r, w in shape]
