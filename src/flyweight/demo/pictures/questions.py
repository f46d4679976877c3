"""What is asked about a picture, and the exact answers."""

from __future__ import annotations

import random
from dataclasses import dataclass

DAYS: tuple[str, ...] = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
QUANTITIES = {"bar": "pressure", "psi": "pressure", "C": "temperature", "mm/s": "vibration"}

CAPTION = ("what does the picture show", "What does the picture show?", "what is this")
READ_GAUGE = (
    "What does the gauge read?", "what does the gauge read", "what is the reading",
    "read the gauge", "Read the gauge.", "what does the dial show",
)  # fmt: skip
READ_METER = (
    "What does the meter read?", "what does the meter read", "what is the reading",
    "read the meter", "Read the meter.", "what does the display show",
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question about a picture with its exact answer.

    `kind` is "gauge", "meter", "value", "highest", "lowest", "change" or "caption". Of a gauge or
    a meter, `value` is the true reading (the answer is rounded) and `full_scale` the span of its
    scale, both in its unit.
    """

    prompt: str
    answer: str
    kind: str
    value: float | None = None
    full_scale: float | None = None


def said(text: str, rng: random.Random) -> str:
    """A question as typed in haste or with care."""
    return f"{text[0].upper()}{text[1:]}?" if rng.random() < 0.3 else text


def number(value: float) -> str:
    """A number without needless decimals: "10", "2.5", "-20"."""
    return f"{value:g}"


def about_gauge(
    rng: random.Random, reading: float, written: str, low: float, high: float, unit: str
) -> tuple[Question, ...]:
    """What a gauge reads, and what gauge it is."""
    caption = f"A {QUANTITIES[unit]} gauge from {number(low)} to {number(high)} {unit}."
    prompt, show = rng.choice(READ_GAUGE), rng.choice(CAPTION)
    return (
        Question(prompt, f"{written} {unit}", "gauge", reading, high - low),
        Question(show, caption, "caption"),
    )


def about_meter(
    rng: random.Random, reading: float, written: str, span: float, unit: str
) -> tuple[Question, ...]:
    """What a digital meter reads, and in which unit."""
    prompt, show = rng.choice(READ_METER), rng.choice(CAPTION)
    return (
        Question(prompt, f"{written} {unit}", "meter", reading, span),
        Question(show, f"A digital meter in {unit}.", "caption"),
    )


def about_series(
    rng: random.Random, kind: str, series: dict[str, int], quantity: str | None
) -> tuple[Question, ...]:
    """Three or four questions about a bar or line chart, in the forms of `jobs.chart_fact`."""
    days, values = list(series), list(series.values())
    top, bottom = max(days, key=series.__getitem__), min(days, key=series.__getitem__)
    change = "rose" if values[-1] > values[0] else "fell"
    of = f" of {quantity}" if quantity else ""
    if rng.random() < 0.25:
        value = "what is the last value", f"The last value is {values[-1]}."
    else:
        day = rng.choice(days)
        value = f"what is the value on {day}", f"The value on {day} is {series[day]}."
    each = [
        ("what is the highest value", f"The highest value is {series[top]} on {top}.", "highest"),
        (
            "what is the lowest value",
            f"The lowest value is {series[bottom]} on {bottom}.",
            "lowest",
        ),
        ("did it rise or fall", f"It {change} from {values[0]} to {values[-1]}.", "change"),
        (*value, "value"),
        (CAPTION[0], f"A {kind} chart{of} from {days[0]} to {days[-1]}.", "caption"),
    ]
    return _some(rng, each)


def about_pie(
    rng: random.Random, shares: dict[str, int], quantity: str | None
) -> tuple[Question, ...]:
    """Three or four questions about a pie chart, whose slices are named by their colours."""
    largest, smallest = max(shares, key=shares.__getitem__), min(shares, key=shares.__getitem__)
    one, other = rng.sample(list(shares), 2)
    of = f" of {quantity}" if quantity else ""
    sizes = [
        (f"how large is the {name} slice", f"The {name} slice is {shares[name]}%.", "value")
        for name in (one, other)
    ]
    each = [
        ("what is the largest slice", f"The largest slice is {largest}.", "highest"),
        ("what is the smallest slice", f"The smallest slice is {smallest}.", "lowest"),
        *sizes,
        (CAPTION[0], f"A pie chart{of} with {len(shares)} slices.", "caption"),
    ]
    return _some(rng, each)


def _some(rng: random.Random, each: list[tuple[str, str, str]]) -> tuple[Question, ...]:
    chosen = rng.sample(each, rng.choice((3, 4)))
    return tuple(Question(said(prompt, rng), answer, kind) for prompt, answer, kind in chosen)
