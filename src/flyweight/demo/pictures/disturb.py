"""The camera: it looks at a drawing askew, in bad light, through glass, and saves a small JPEG.

Instruments get the whole treatment, charts (which are screenshots or scans) only a little of it.
"""

from __future__ import annotations

import io
import math
import random
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from flyweight.demo.pictures.scene import Point, Scene

Pixels = NDArray[np.float32]  # 3, height, width: planes are quicker to work on; 0 to 255
Matrix = NDArray[np.float64]  # 3, 3: homogeneous coordinates

DISTANCE = 2.6  # of the camera, in halves of the thing's width
MOST_TURN = 20.0  # degrees
LEAST_FILL, MOST_FILL, STEADY_FILL = 0.76, 1.0, 0.95  # width of the thing in that of the picture
GRAIN = 512  # side of the noise that pictures take theirs from
COARSE = 40  # side of a mask of light before it is blown up


def photograph(
    scene: Scene, rng: random.Random, size: int, disturbed: bool = True
) -> tuple[Image.Image, dict[str, Point]]:
    """The picture of a scene (RGB, size x size) and where its points lie, as fractions of it."""
    if not 0 < size < GRAIN:
        raise ValueError(f"a picture is 1 to {GRAIN - 1} pixels wide, not {size}")
    chart = scene.paper is not None
    view = chart_view(scene, rng, disturbed) if chart else camera_view(scene, rng, disturbed)
    image = look(scene, view, size)
    if disturbed:
        image = blemish(image, rng) if chart else expose(image, rng)
    return image, {name: project(view, point) for name, point in scene.points.items()}


def project(view: Matrix, point: Point) -> Point:
    """Where a canvas point lies in the picture: fractions of its width and height."""
    x, y, depth = view @ (point[0] + 0.5, point[1] + 0.5, 1.0)  # ImageDraw counts pixel middles
    return float(x / depth), float(y / depth)


def camera_view(scene: Scene, rng: random.Random, disturbed: bool = True) -> Matrix:
    """From the canvas to the unit square: turned in space, somewhere in the frame."""
    steep = rng.random() < 0.6
    most = MOST_TURN if steep else 6.0
    roll, yaw, pitch = (rng.uniform(-most, most) for _ in range(3))
    roll *= 0.7
    fill = rng.uniform(LEAST_FILL, MOST_FILL)
    across, down = (rng.uniform(-1, 1) for _ in range(2))
    if not disturbed:
        fill, roll, yaw, pitch, across, down = STEADY_FILL, 0.0, 0.0, 0.0, 0.0, 0.0
    c, s = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    cy, sy = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    cp, sp = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
    rolled = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    turned = np.array([[cy, 0, 0], [sy * sp, cp, 0], [-sy * cp / DISTANCE, sp / DISTANCE, 1]])
    seen = turned @ rolled @ _unit(scene)
    spots = [project(seen, point) for point in scene.outline]
    (left, right), (top, bottom) = ((min(axis), max(axis)) for axis in zip(*spots, strict=True))
    scale = fill / max(right - left, bottom - top)
    room = (1 - scale * (right - left)) / 2, (1 - scale * (bottom - top)) / 2
    x = 0.5 + across * room[0] - scale * (left + right) / 2
    y = 0.5 + down * room[1] - scale * (top + bottom) / 2
    return np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]]) @ seen


def chart_view(scene: Scene, rng: random.Random, disturbed: bool = True) -> Matrix:
    """From a page to the unit square: straight most of the time, else turned by a degree or two."""
    turned = rng.random() < 0.35
    roll, fill = math.radians(rng.uniform(-2.5, 2.5)), rng.uniform(0.93, 1.0)
    if not (turned and disturbed):
        roll, fill = 0.0, 1.0
    c, s = fill / 2 * math.cos(roll), fill / 2 * math.sin(roll)
    return np.array([[c, -s, 0.5], [s, c, 0.5], [0, 0, 1]]) @ _unit(scene)


def _unit(scene: Scene) -> Matrix:
    """The canvas with the thing's middle at 0 and half its width as 1."""
    middle = scene.canvas.width / 2
    scale = 1 / (middle - min(x for x, _ in scene.outline))
    return np.array([[scale, 0, -middle * scale], [0, scale, -middle * scale], [0, 0, 1]])


def look(scene: Scene, view: Matrix, size: int) -> Image.Image:
    """The canvas seen through `view`; a straight page is merely made smaller."""
    canvas = scene.canvas
    if scene.paper is not None and view[0, 1] == 0:
        return canvas.resize((size, size), Image.Resampling.BOX)
    back = np.linalg.inv(np.diag((size, size, 1.0)) @ view)
    back /= back[2, 2]
    edge = scene.paper or canvas.getpixel((2, 2))
    return canvas.transform(
        (size, size),
        Image.Transform.PERSPECTIVE,
        back.flatten()[:8].tolist(),
        Image.Resampling.BILINEAR,
        fillcolor=edge,  # pyright: ignore[reportArgumentType]  # a colour, as of any RGB image
    )


def expose(image: Image.Image, rng: random.Random) -> Image.Image:
    """A photograph in a plant: blur, slanting light, glare on the glass, noise, compression."""
    pixels = planes(image)
    if rng.random() < 0.55:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            soften(pixels, rng.uniform(0.06, 0.25))
    if rng.random() < 0.1:
        pixels = shake(pixels, rng)
    light(pixels, rng)
    if rng.random() < 0.2:
        shine(pixels, rng, (10.0, 10.0, 10.0), rng.uniform(0.2, 0.5))  # a shadow
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        tint = (255.0, rng.uniform(235, 255), rng.uniform(215, 255))
        shine(pixels, rng, tint, rng.uniform(0.3, 0.8))
    grain(pixels, rng, rng.uniform(0, 9))
    quality = rng.randint(28, 80) if rng.random() < 0.5 else None
    return develop(pixels, quality)


def blemish(image: Image.Image, rng: random.Random) -> Image.Image:
    """A screenshot or a scan: now and then a little blur, noise or compression."""
    if rng.random() < 0.35:
        return image
    pixels = planes(image)
    if rng.random() < 0.4:
        soften(pixels, rng.uniform(0.04, 0.14))
    pixels *= rng.uniform(0.88, 1.04)
    grain(pixels, rng, rng.uniform(0, 5))
    return develop(pixels, rng.randint(50, 90) if rng.random() < 0.5 else None)


def planes(image: Image.Image) -> Pixels:
    return np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")


def soften(pixels: Pixels, weight: float) -> None:
    """Blur in place by three taps a direction, the outer ones `weight` (variance: twice that)."""
    for before, inner, after in (
        (pixels[:, :-2], pixels[:, 1:-1], pixels[:, 2:]),
        (pixels[:, :, :-2], pixels[:, :, 1:-1], pixels[:, :, 2:]),
    ):
        beside = before + after
        beside *= weight
        inner *= 1 - 2 * weight
        inner += beside


def shake(pixels: Pixels, rng: random.Random) -> Pixels:
    """Motion blur: the picture and two shifted ones, a pixel or so apart."""
    across, down = rng.choice(((1, 0), (0, 1), (1, 1), (1, -1), (2, 0)))
    moved = np.roll(pixels, (down, across), (1, 2)) + np.roll(pixels, (-down, -across), (1, 2))
    return np.multiply(pixels + moved, 1 / 3, dtype=np.float32)


def light(pixels: Pixels, rng: random.Random) -> None:
    """In place: a brightness, a colour of light, haze, and a slope of light across it."""
    turn, slope = rng.uniform(0, math.tau), rng.uniform(0, 0.35)
    steps = np.linspace(-1, 1, pixels.shape[1], dtype=np.float32)
    across, down = steps[None, :], steps[:, None]
    ramp = 1 + slope * (math.cos(turn) * across + math.sin(turn) * down)
    if rng.random() < 0.3:
        ramp -= rng.uniform(0.05, 0.25) * (across * across + down * down)
    haze = rng.uniform(0, 0.2) if rng.random() < 0.4 else 0.0
    strength = rng.uniform(0.75, 1.15) * (1 - haze)
    for plane in pixels:
        plane *= ramp * np.float32(strength * rng.uniform(0.93, 1.07))
    if haze:
        pixels += np.float32(120 * haze)


def shine(
    pixels: Pixels, rng: random.Random, colour: tuple[float, float, float], strength: float
) -> None:
    """In place: a soft spot or strip of that colour, at most `strength` opaque."""
    mask = Image.new("L", (COARSE, COARSE))
    draw = ImageDraw.Draw(mask)
    x, y = rng.uniform(0, COARSE), rng.uniform(0, COARSE)
    if rng.random() < 0.55:
        wide, high = rng.uniform(1.5, 8), rng.uniform(1.5, 8)
        draw.ellipse((x - wide, y - high, x + wide, y + high), fill=255)
    else:
        turn, width = rng.uniform(0, math.pi), rng.uniform(0.8, 3.5)
        along = math.cos(turn) * COARSE, math.sin(turn) * COARSE
        off = -math.sin(turn) * width, math.cos(turn) * width
        draw.polygon(
            [(x + i * along[0] + j * off[0], y + i * along[1] + j * off[1])
             for i, j in ((-1, -1), (-1, 1), (1, 1), (1, -1))],
            fill=255,
        )  # fmt: skip
    soft = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.7, 2.2)))
    full = soft.resize(pixels.shape[:0:-1], Image.Resampling.BILINEAR)
    share = np.asarray(full) * np.float32(strength / 255)
    for plane, aim in zip(pixels, colour, strict=True):
        missing = np.float32(aim) - plane
        missing *= share
        plane += missing


def grain(pixels: Pixels, rng: random.Random, sigma: float) -> None:
    """In place: normal noise, a part of a sheet of it that was drawn once."""
    _, height, width = pixels.shape
    top, left = rng.randrange(GRAIN - height), rng.randrange(GRAIN - width)
    pixels += _sheet()[:, top : top + height, left : left + width] * np.float32(sigma)


@cache
def _sheet() -> Pixels:
    noise = np.random.default_rng(0).standard_normal((4, GRAIN, GRAIN))
    return (0.85 * noise[:1] + 0.5 * noise[1:]).astype(np.float32)  # mostly grey


def develop(pixels: Pixels, quality: int | None) -> Image.Image:
    """The pixels (which are used up) as an image, with the marks of a JPEG of that quality."""
    np.clip(pixels, 0, 255, out=pixels)
    image = Image.merge("RGB", [Image.fromarray(plane) for plane in pixels.astype(np.uint8)])
    if quality is None:
        return image
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=quality)
    packed.seek(0)
    return Image.open(packed).convert("RGB")
