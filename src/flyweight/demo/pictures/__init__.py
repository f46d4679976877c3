"""Pictures of instruments and charts with questions about them, drawn by code.

Every picture is of a design that was drawn at random with its value: no two gauges are alike.
What the code knows of a picture stands in its facts, which may teach an image encoder directly.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from PIL import Image

from flyweight.demo.pictures.charts import pie_chart, series_chart
from flyweight.demo.pictures.disturb import photograph
from flyweight.demo.pictures.gauges import gauge
from flyweight.demo.pictures.meters import meter
from flyweight.demo.pictures.questions import Question
from flyweight.demo.pictures.scene import Scene
from flyweight.demo.pictures.sheets import sheet

__all__ = ["KINDS", "SIZE", "Picture", "Question", "draw", "picture", "pictures"]

SIZE = 160
KINDS = {"gauge": 0.50, "meter": 0.15, "bar": 0.14, "line": 0.11, "pie": 0.10}  # share of each

SCENES: dict[str, Callable[[random.Random], Scene]] = {
    "sheet": sheet,
    "gauge": gauge,
    "meter": meter,
    "bar": lambda rng: series_chart(rng, "bar"),
    "line": lambda rng: series_chart(rng, "line"),
    "pie": pie_chart,
}


@dataclass(frozen=True)
class Picture:
    """An image (RGB, square), what is asked about it, and what the drawing code knows.

    `facts["points"]` are places as fractions of the picture's width and height, after all warps.
    A gauge's `needle_angle` is its needle's direction in the picture, in radians, clockwise from
    the right (y points down).
    """

    image: Image.Image
    questions: tuple[Question, ...]
    facts: dict[str, Any]


def draw(
    rng: random.Random, kind: str | None = None, size: int = SIZE, disturbed: bool = True
) -> Picture:
    """A picture of one of KINDS (None: by their shares), seen askew and in bad light.

    Not `disturbed`, it is seen straight on, sharp and evenly lit.
    """
    kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
    return picture(SCENES[kind](rng), rng, size, disturbed)


def picture(scene: Scene, rng: random.Random, size: int = SIZE, disturbed: bool = True) -> Picture:
    """A scene as the camera sees it, with its facts where they end up."""
    image, points = photograph(scene, rng, size, disturbed)
    facts = scene.facts | {"points": points}
    if "tip" in points:
        (x, y), (to_x, to_y) = points["hub"], points["tip"]
        facts["needle_angle"] = math.atan2(to_y - y, to_x - x)
    return Picture(image, scene.questions, facts)


def pictures(seed: int, size: int = SIZE) -> Iterator[Picture]:
    """Endless pictures, reproducible from the seed: the n-th depends on seed and n alone."""
    for number in count():
        yield draw(random.Random(f"{seed}/pictures/{number}"), size=size)
