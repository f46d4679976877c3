"""The demo's pictures: what is drawn is what is asked, measured in pixels."""

from __future__ import annotations

import json
import math
import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flyweight.demo.pictures import KINDS, SIZE, Picture, Question, draw, picture, pictures
from flyweight.demo.pictures.__main__ import write
from flyweight.demo.pictures.designs import SCALES
from flyweight.demo.pictures.gauges import gauge
from flyweight.demo.pictures.meters import meter
from flyweight.tasks.read import read_task

LIT = {  # segments from the top clockwise, then the middle one: which make which character
    "1111110": "0", "0110000": "1", "1101101": "2", "1111001": "3", "0110011": "4",
    "1011011": "5", "1011111": "6", "1110000": "7", "1111111": "8", "1111011": "9",
    "0000001": "-", "0000000": " ",
}  # fmt: skip
SPOTS = ((0.5, 0.06), (0.9, 0.27), (0.9, 0.73), (0.5, 0.94), (0.1, 0.73), (0.1, 0.27), (0.5, 0.5))


def rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(float)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_depends_on_its_seed_alone(kind: str) -> None:
    one, same, other = (draw(random.Random(seed), kind) for seed in (3, 3, 4))
    assert one.image.tobytes() == same.image.tobytes()
    assert one.questions == same.questions
    assert one.facts == same.facts
    assert one.image.tobytes() != other.image.tobytes()
    assert (one.image.mode, one.image.size) == ("RGB", (SIZE, SIZE))


def test_the_stream_is_the_same_again_and_of_all_kinds() -> None:
    drawn = list(islice(pictures(5), 60))
    again = list(islice(pictures(5), 20))
    assert [each.image.tobytes() for each in drawn[:20]] == [each.image.tobytes() for each in again]
    assert {each.facts["kind"] for each in drawn} == set(KINDS)
    assert sum(KINDS.values()) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(12))
def test_a_needle_points_where_its_fraction_is_on_the_scale(seed: int) -> None:
    fraction = random.Random(seed).choice((0.0, 0.07, 0.36, 0.5, 0.81, 1.0))
    others = [each for each in (0.2, 0.65, 0.93) if abs(each - fraction) > 0.1]

    def seen(at: float) -> Picture:
        return picture(gauge(rng := random.Random(seed), at), rng, 320, disturbed=False)

    one = seen(fraction)
    changed = [np.abs(rgb(one.image) - rgb(seen(each).image)).sum(2) > 90 for each in others]
    y, x = np.nonzero(np.logical_and.reduce(changed))  # where this needle is, and no other
    far = np.hypot(x - 160, y - 160) > 50  # beyond the hub and the tail
    angles = np.arctan2(y[far] - 160, x[far] - 160)
    measured = math.atan2(np.sin(angles).mean(), np.cos(angles).mean())

    (start_x, start_y), sweep = one.facts["points"]["start"], one.facts["sweep"]
    expected = math.atan2(start_y - 0.5, start_x - 0.5) + fraction * sweep
    assert far.sum() > 20
    assert abs(math.remainder(measured - expected, math.tau)) < 0.06
    assert abs(math.remainder(one.facts["needle_angle"] - expected, math.tau)) < 0.01


def test_the_camera_moves_the_needle_as_it_says() -> None:
    """Askew, the needle's tip is where the facts say: there two values' pictures differ."""
    for seed in range(8):
        near, far = (draw_gauge_askew(seed, fraction) for fraction in (0.3, 0.8))
        change = np.abs(rgb(near.image) - rgb(far.image)).sum(2)
        for each in (near, far):
            (x, y), (to_x, to_y) = each.facts["points"]["hub"], each.facts["points"]["tip"]
            at = [x + 0.75 * (to_x - x), y + 0.75 * (to_y - y)]
            column, row = (round(SIZE * place - 0.5) for place in at)
            assert change[row - 2 : row + 3, column - 2 : column + 3].max() > 60


def draw_gauge_askew(seed: int, fraction: float) -> Picture:
    return picture(gauge(random.Random(seed), fraction), random.Random(f"{seed}/camera"))


@pytest.mark.parametrize("seed", range(10))
def test_bars_are_as_high_as_their_values(seed: int) -> None:
    drawn = draw(random.Random(seed), "bar", disturbed=False)
    pixels, points = rgb(drawn.image), drawn.facts["points"]
    for i, value in enumerate(drawn.facts["values"]):
        x, base = (place * SIZE for place in points[f"base {i}"])
        column = pixels[: int(base) - 1, int(x)][::-1]  # from the axis upwards
        unlike = np.abs(column - column[2]).sum(1) > 30
        unlike[:2] = False  # an outline, if there is one
        height = int(np.argmax(unlike)) if unlike.any() else len(unlike)
        full = (base - points[f"value {i}"][1] * SIZE) / value  # pixels a unit, by the axis
        assert height == pytest.approx(value * full, abs=2.5)
    values = drawn.facts["values"]
    tops = [points[f"base {i}"][1] - points[f"value {i}"][1] for i in range(len(values))]
    assert np.allclose(np.divide(tops, values), tops[0] / values[0])


@pytest.mark.parametrize("seed", range(10))
def test_slices_have_the_colours_and_shares_that_are_named(seed: int) -> None:
    drawn = draw(random.Random(seed), "pie", 320, disturbed=False)
    pixels, facts = rgb(drawn.image), drawn.facts
    areas = []
    for i in range(len(facts["values"])):
        x, y = (int(320 * place) for place in facts["points"][f"value {i}"])
        areas.append((np.abs(pixels - pixels[y, x]).sum(2) < 12).sum())
    for area, share in zip(areas, facts["values"], strict=True):
        assert 100 * area / sum(areas) == pytest.approx(share, abs=2)
    assert sum(facts["values"]) == 100


@pytest.mark.parametrize("seed", range(15))
def test_segments_spell_the_number(seed: int) -> None:
    rng = random.Random(seed)
    drawn = picture(meter(rng), rng, 320, disturbed=False)
    pixels, points = rgb(drawn.image), drawn.facts["points"]
    characters = drawn.facts["characters"]

    def colour(cell: int, across: float, down: float) -> np.ndarray:
        (x0, y0), (x1, y1), _, (x3, y3) = (points[f"cell {cell} {j}"] for j in range(4))
        x = x0 + across * (x1 - x0) + down * (x3 - x0)
        y = y0 + across * (y1 - y0) + down * (y3 - y0)
        return pixels[int(320 * y), int(320 * x)]

    window = colour(len(characters) - 1, 0.5, 0.27)  # inside the last digit's upper loop
    light = np.array(
        [
            [np.abs(colour(i, *spot) - window).sum() for spot in SPOTS]
            for i in range(len(characters))
        ]
    )
    read = ["".join(str(int(on)) for on in cell > light.max() / 2) for cell in light]
    assert "".join(LIT[each] for each in read) == characters
    assert characters.strip() == drawn.facts["written"].replace(".", "")


def test_every_answer_follows_from_the_facts() -> None:
    for drawn in islice(pictures(2), 250):
        for each in drawn.questions:
            assert each.answer.isascii()
            assert each.prompt.isascii()
            assert each.answer == expected(each, drawn.facts), each
        asked = [each.prompt for each in drawn.questions]
        assert len(set(asked)) == len(asked) >= 2


def expected(question: Question, facts: dict) -> str:
    """The answer, worked out again from what the drawing code knows."""
    prompt, kind = question.prompt.lower().rstrip("?"), facts["kind"]
    if kind in ("gauge", "meter"):
        return of_instrument(question, facts)
    values, of = facts["values"], f" of {facts['title']}" if facts["title"] else ""
    names = facts["colours"] if kind == "pie" else facts["days"]
    known = dict(zip(names, values, strict=True))
    pick = {"highest": max, "lowest": min, "largest": max, "smallest": min}
    [adjective] = [word for word in pick if word in prompt] or [""]
    at = pick[adjective](known, key=known.__getitem__) if adjective else ""
    [named] = [name for name in names if name.lower() in prompt.split()] or [""]
    if question.kind == "caption":
        what = f"with {len(values)} slices" if kind == "pie" else f"from {names[0]} to {names[-1]}"
        return f"A {kind} chart{of} {what}."
    if kind == "pie":
        slice_ = f"The {named} slice is {known.get(named)}%."
        return f"The {adjective} slice is {at}." if adjective else slice_
    if question.kind == "change":
        word = "rose" if values[-1] > values[0] else "fell"
        return f"It {word} from {values[0]} to {values[-1]}."
    if adjective:
        return f"The {adjective} value is {known[at]} on {at}."
    return (
        f"The value on {named} is {known[named]}." if named else f"The last value is {values[-1]}."
    )


def of_instrument(question: Question, facts: dict) -> str:
    unit = facts["unit"]
    if facts["kind"] == "meter":
        number = f"{facts['reading']:.{facts['decimals']}f}"
        return f"A digital meter in {unit}." if question.kind == "caption" else f"{number} {unit}"
    scale = SCALES[facts["scale"]]
    quantity = {"bar": "pressure", "psi": "pressure", "C": "temperature"}.get(unit, "vibration")
    if question.kind == "caption":
        return f"A {quantity} gauge from {scale.low:g} to {scale.high:g} {unit}."
    span = scale.high - scale.low
    assert question.value == pytest.approx(scale.low + facts["fraction"] * span)
    assert question.full_scale == span
    written = facts["written"]
    assert abs(float(written) - facts["reading"]) <= 0.5001 * scale.step <= 0.0101 * span
    return f"{written} {unit}"


def test_what_is_written_is_a_task_with_its_images(tmp_path: Path) -> None:
    path = write(tmp_path, amount=30, seed=1)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["group"] for line in lines}) == 30
    for line in lines:
        with Image.open(tmp_path / line["image"]) as image:
            assert image.size == (SIZE, SIZE)
    assert read_task(path, pictures=True)


@pytest.mark.parametrize("seed", range(10))
def test_words_are_printed_where_the_facts_say(seed: int) -> None:
    """Around each word's place there is ink, and in all kinds of pictures."""
    for kind in ("sheet", *KINDS):
        drawn = draw(random.Random(f"{kind}/{seed}"), kind, 320, disturbed=False)
        pixels = rgb(drawn.image)
        words = {name: at for name, at in drawn.facts["points"].items() if name.startswith("word ")}
        assert words or drawn.facts["kind"] == "pie"
        for name, (x, y) in words.items():
            left, top = int(320 * x) - 7, int(320 * y) - 7
            spot = pixels[max(0, top) : top + 14, max(0, left) : left + 14]
            assert np.ptp(spot.sum(2)) > 150, (kind, seed, name)
