"""What the drawings share: a canvas with what is known of it, fonts, colours, walls to hang on.

Instruments are drawn flat and about twice as large as they will be seen, and then photographed
(`disturb.py`). All coordinates are canvas pixels, x to the right, y down.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import flyweight
from flyweight.demo.pictures.questions import Question

CANVAS = 512  # of instruments, with the wall around them
PAGE = 320  # of charts, which have no wall
WALL = 640  # a wall is cropped from it
WALLS = 24
PAINTS = (  # concrete, plaster, steel, machine green, blue and grey, wood, dark halls
    (150, 148, 142), (206, 202, 190), (120, 124, 130), (84, 116, 100), (66, 92, 130),
    (98, 104, 108), (140, 108, 78), (44, 46, 50), (186, 190, 196), (196, 176, 140),
    (70, 60, 54), (226, 226, 222),
)  # fmt: skip
FONTS = ("aileron", "Arimo-Regular", "Arimo-Bold")
FONT_FOLDER = Path(flyweight.__file__).parent / "energy" / "fonts"

Colour = tuple[int, int, int]
Point = tuple[float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass
class Scene:
    """A flat drawing: where the thing is, what is asked, and what the drawing code knows.

    `outline` encloses the thing: the camera gets all of it into the frame. `points` are places on
    the canvas that end up in the facts as fractions of the picture, wherever the camera puts them.
    """

    canvas: Image.Image
    outline: tuple[Point, ...]
    questions: tuple[Question, ...]
    facts: dict[str, Any]
    points: dict[str, Point]
    paper: Colour | None = None  # of a chart, which is a page: what lies around it


@cache
def font(name: str, size: int) -> Font:
    """One of FONTS at a size in pixels: Pillow's own (Aileron) or the project's Arimo."""
    if name == "aileron":
        return ImageFont.load_default(size)
    path = FONT_FOLDER / f"{name}.ttf"
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def write(
    draw: ImageDraw.ImageDraw,
    at: Point,
    text: str,
    ink: Colour,
    style: tuple[str, int],
    anchor: str = "mm",
) -> None:
    """Text in a font and size; `anchor` is Pillow's, "mm" for its middle. Renders a text once."""
    stencil, (left, top) = _stencil(text, *style, anchor)
    draw.bitmap((round(at[0] + left), round(at[1] + top)), stencil, ink)


@lru_cache(4096)
def _stencil(text: str, name: str, size: int, anchor: str) -> tuple[Image.Image, Point]:
    """A text's mask and where its corner lies from the anchor."""
    left, top, right, bottom = font(name, size).getbbox(text, anchor=anchor)
    corner = math.floor(left) - 1, math.floor(top) - 1
    room = math.ceil(right) + 1 - corner[0], math.ceil(bottom) + 1 - corner[1]
    mask = Image.new("L", room)
    at = -corner[0], -corner[1]
    ImageDraw.Draw(mask).text(at, text, 255, font(name, size), anchor)
    return mask, corner


def jitter(colour: Colour, rng: random.Random, most: int = 12) -> Colour:
    """The same colour, a little off."""
    red, green, blue = (max(0, min(255, each + rng.randint(-most, most))) for each in colour)
    return red, green, blue


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """A colour between two: `share` of the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def polar(middle: Point, radius: float, degrees: float) -> Point:
    """The point at a distance and angle from `middle`, counted counter-clockwise from the right."""
    turn = math.radians(degrees)
    return middle[0] + radius * math.cos(turn), middle[1] - radius * math.sin(turn)


def disc(draw: ImageDraw.ImageDraw, middle: Point, radius: float, fill: Colour) -> None:
    x, y = middle
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def screw(draw: ImageDraw.ImageDraw, middle: Point, radius: float, rng: random.Random) -> None:
    """A screw's head with its slot at some angle."""
    shade = rng.randint(120, 200)
    steel, dark = (shade, shade, shade), (shade // 3, shade // 3, shade // 3)
    disc(draw, middle, radius + 1, dark)
    disc(draw, middle, radius, steel)
    degrees = rng.uniform(0, 180)
    ends = [polar(middle, radius * 0.8, degrees), polar(middle, radius * 0.8, degrees + 180)]
    draw.line(ends, fill=dark, width=2)


def wall(rng: random.Random) -> Image.Image:
    """A CANVAS of wall, metal sheet, brick or clutter: what an instrument is seen against."""
    left, top = rng.randrange(WALL - CANVAS), rng.randrange(WALL - CANVAS)
    return _wall(rng.randrange(WALLS)).crop((left, top, left + CANVAS, top + CANVAS))


@cache
def _wall(number: int) -> Image.Image:
    rng = random.Random(f"wall/{number}")
    noise = np.random.default_rng(number)
    tone = np.array(jitter(rng.choice(PAINTS), rng, 10))
    rough = rng.choice((4, 8, 20, 40, 80))
    stretch = rng.choice(((1, 1), (1, 1), (1, 12), (10, 1)))  # plaster, or brushed metal
    grains = (max(2, rough // stretch[0]), max(2, rough // stretch[1]), 1)
    grey = noise.normal(0, rng.uniform(4, 26), grains) + noise.normal(0, 5, (*grains[:2], 3))
    small = Image.fromarray(np.clip(tone + grey, 0, 255).astype(np.uint8))
    image = small.resize((WALL, WALL), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    if number % 4 == 1:
        _bricks(draw, rng, mix((int(tone[0]), int(tone[1]), int(tone[2])), (20, 20, 20), 0.4))
    elif number % 4 == 2:
        for _ in range(rng.randint(2, 5)):
            _pipe(draw, rng)
    fine = noise.normal(0, rng.uniform(1, 6), (WALL, WALL, 1))
    return Image.fromarray(np.clip(np.asarray(image) + fine, 0, 255).astype(np.uint8))


def _bricks(draw: ImageDraw.ImageDraw, rng: random.Random, joint: Colour) -> None:
    height, width = rng.randint(28, 60), rng.randint(70, 130)
    for row, y in enumerate(range(0, WALL, height)):
        draw.line((0, y, WALL, y), fill=joint, width=4)
        for x in range(-width // 2 * (row % 2), WALL, width):
            draw.line((x, y, x, y + height), fill=joint, width=4)


def _pipe(draw: ImageDraw.ImageDraw, rng: random.Random) -> None:
    """A round pipe across the wall: stripes from dark to light to dark."""
    colour = jitter(
        rng.choice(((150, 150, 155), (170, 120, 70), (60, 110, 70), (150, 60, 50))), rng
    )
    width, at, upright = rng.randint(20, 80), rng.randrange(WALL), rng.random() < 0.5
    for i in range(width):
        shade = mix((15, 15, 15), colour, 0.25 + 0.75 * math.sin(math.pi * (i + 0.5) / width))
        line = (at + i, 0, at + i, WALL) if upright else (0, at + i, WALL, at + i)
        draw.line(line, fill=shade)
