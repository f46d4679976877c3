"""What a dial gauge is made to: a standard range, and a design of its own for every gauge."""

from __future__ import annotations

import random
from dataclasses import dataclass

from flyweight.demo.pictures.scene import FONTS, Colour, jitter

RADIUS = 140.0  # of the housing, in canvas pixels


@dataclass(frozen=True)
class Scale:
    """A standard range; a reading is written to the nearest `step`.

    `layouts` are ways to divide it: the distance of printed numbers, and parts between them.
    """

    low: float
    high: float
    unit: str
    step: float
    decimals: int
    layouts: tuple[tuple[float, int], ...]

    def at(self, fraction: float) -> float:
        """What a needle reads that stands at a fraction of the scale."""
        return self.low + fraction * (self.high - self.low)

    def write(self, value: float) -> str:
        written = f"{round(value / self.step) * self.step:.{self.decimals}f}"
        return written.removeprefix("-") if float(written) == 0 else written

    @property
    def numbers(self) -> list[float]:
        """All numbers that one of its layouts prints."""
        return [
            self.low + place * apart
            for apart, _ in self.layouts
            for place in range(round((self.high - self.low) / apart) + 1)
        ]


SCALES = (
    Scale(0, 4, "bar", 0.05, 2, ((1, 5), (1, 10))),
    Scale(0, 6, "bar", 0.1, 1, ((1, 5), (1, 10), (2, 4), (2, 10))),
    Scale(0, 10, "bar", 0.1, 1, ((2, 4), (2, 10), (1, 5), (5, 10))),
    Scale(0, 16, "bar", 0.1, 1, ((4, 4), (4, 8), (2, 4))),
    Scale(0, 25, "bar", 0.2, 1, ((5, 5), (5, 10))),
    Scale(0, 100, "psi", 1, 0, ((20, 4), (20, 10), (25, 5), (50, 10))),
    Scale(0, 160, "psi", 1, 0, ((40, 4), (40, 8), (20, 4))),
    Scale(0, 120, "C", 1, 0, ((20, 4), (20, 10), (40, 8), (30, 6))),
    Scale(-20, 60, "C", 1, 0, ((20, 4), (20, 10), (10, 5))),
    Scale(0, 200, "C", 2, 0, ((50, 5), (50, 10), (40, 4), (100, 10))),
    Scale(0, 12, "mm/s", 0.1, 1, ((2, 4), (3, 6), (4, 8))),
)

LIGHT_FACES = ((250, 250, 248), (244, 240, 224), (226, 228, 230), (250, 244, 190), (222, 236, 244))
DARK_FACES = ((18, 18, 20), (16, 24, 52), (46, 48, 52), (14, 44, 34), (60, 20, 22))
DARK_INKS = ((10, 10, 12), (20, 26, 60), (50, 30, 20), (40, 40, 44))
LIGHT_INKS = ((250, 250, 250), (250, 244, 214), (220, 240, 210), (250, 216, 120))
NEEDLES_ON_LIGHT = ((8, 8, 8), (8, 8, 8), (200, 20, 20), (20, 40, 130), (214, 84, 10))
NEEDLES_ON_DARK = ((250, 250, 250), (240, 50, 40), (255, 130, 20), (255, 222, 60), (130, 240, 110))


@dataclass(frozen=True)
class Design:
    """What the parts of one dial agree on; angles in degrees, counter-clockwise from the right."""

    scale: Scale
    start: float  # the angle of the scale's low end
    sweep: float  # from there, clockwise
    face: Colour
    ink: Colour
    needle: Colour
    font: str
    radius: float  # of the face
    rim: float  # of the scale's line
    outward: bool  # ticks and numbers outside that line

    def angle(self, fraction: float) -> float:
        return self.start - self.sweep * fraction

    @property
    def dark(self) -> bool:
        return sum(self.face) < sum(self.ink)


def design(rng: random.Random) -> Design:
    """A dial that nobody has seen before."""
    kind = rng.random()
    if kind < 0.45:
        sweep = 270.0
    elif kind < 0.6:
        sweep = 180.0
    else:
        sweep = rng.uniform(180, 300)
    start = 90 + sweep / 2 + (rng.uniform(-15, 15) if rng.random() < 0.12 else 0)
    dark = rng.random() < 0.3
    radius = RADIUS - rng.uniform(9, 20)
    outward = rng.random() < 0.15
    return Design(
        scale=rng.choice(SCALES),
        start=start,
        sweep=sweep,
        face=jitter(rng.choice(DARK_FACES if dark else LIGHT_FACES), rng, 6),
        ink=jitter(rng.choice(LIGHT_INKS if dark else DARK_INKS), rng, 6),
        needle=jitter(rng.choice(NEEDLES_ON_DARK if dark else NEEDLES_ON_LIGHT), rng, 8),
        font=rng.choice(FONTS),
        radius=radius,
        rim=radius * (rng.uniform(0.56, 0.6) if outward else rng.uniform(0.86, 0.95)),
        outward=outward,
    )
