"""A sticker worked out from what was metered: equivalents, carbon, water, and what is beside it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from flyweight.energy.constants import JOULES_A_KWH, carbon_intensity, constants, facts_of
from flyweight.energy.hosting import answer, model_of_size
from flyweight.energy.machine import ComputerHere, processor
from flyweight.figure import Figure, exactly
from flyweight.sticker_card import (
    Counterfactual,
    Making,
    Metered,
    MeteredDevice,
    Sticker,
)

SHARED_BY = 1_000_000  # answers that the making is shared by, if no number is told
HOSTED = 500_000_000_000  # parameters of the model that it is held beside
HOSTED_DEVICES = ("a100-80", "h100", "h200")
BEST_BITS, USUAL_BITS = 8, 16


@dataclass(frozen=True)
class Labelled:
    """The model that a sticker is for: its file, and what it was judged on if it was."""

    name: str
    bits: int
    bytes: int
    engine: str
    threads: int
    task: str | None = None
    score: float | None = None  # 0 to 1
    score_name: str | None = None


def make_sticker(
    model: Labelled,
    metered: Metered,
    computer: ComputerHere,
    country: str | None = None,
    making: Figure | None = None,
    shared_by: int = SHARED_BY,
) -> Sticker:
    """The sticker of a model whose answers were metered on this computer.

    `making`: what making it took in joules, its building's part included. Raises OptionError for an
    unknown country.
    """
    told, whole = constants(), metered.joules.facility
    bottle, charge = told.equivalents.bottle, told.equivalents.phone_charge
    water = water_of(metered.joules.computer, computer)
    right = model.score or None
    return Sticker(
        model=model.name,
        bits=model.bits,
        bytes=model.bytes,
        task=model.task,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        constants=told.version,
        device=MeteredDevice(
            processor=processor(),
            cores=computer.cores,
            threads=model.threads,
            computer=computer.kind,
            computer_source=computer.source,
        ),
        engine=model.engine,
        country=country,
        answers=metered.answers,
        seconds=metered.seconds,
        tokens_read=metered.tokens_read,
        tokens_written=metered.tokens_written,
        joules=metered.joules,
        reading=metered.reading,
        writing=metered.writing,
        score=model.score,
        score_name=model.score_name,
        joules_a_correct_answer=None if right is None else whole / right,
        answers_a_phone_charge=(charge * (JOULES_A_KWH / 1000)) / whole,
        answers_a_bottle=exactly(bottle) / water,
        carbon=carbon_of(whole, country),
        embodied_carbon=embodied_of(metered.seconds, computer),
        water=water,
        counterfactual=_counterfactual(metered),
        making=None if making is None else _making(making, country, shared_by),
        notes=metered.notes,
    )


def carbon_of(joules: Figure, country: str | None) -> Figure:
    """Grams of CO2e of so much electricity."""
    return joules * (1 / JOULES_A_KWH) * carbon_intensity(country)


def water_of(joules: Figure, computer: ComputerHere) -> Figure:
    """Litres of water for what the computer takes, at power plants and on site.

    IT energy x (on site + PUE x at the plants); nothing on site where there is no data centre.
    """
    water, hosted = constants().water, computer.kind == "server"
    plants = water.plant * computer.facts.pue if hosted else water.plant
    litres = plants + water.site if hosted else plants
    source = "water of power plants" + (" and data centres" if hosted else "")
    return joules * (1 / JOULES_A_KWH) * litres.model_copy(update={"source": source})


def embodied_of(seconds: float, computer: ComputerHere) -> Figure:
    """Grams of CO2e: the share of the computer's making in so many of its seconds."""
    facts = computer.facts
    share = seconds / (facts.years * 365 * 24 * 3600)
    made = facts.embodied * (1000.0 * computer.scale * share)
    return made.model_copy(
        update={"source": f"making a {computer.kind}, over {facts.years:g} years"}
    )


def _making(joules: Figure, country: str | None, shared_by: int) -> Making:
    return Making(
        kwh=joules * (1 / JOULES_A_KWH),
        carbon=carbon_of(joules, country),
        answers=shared_by,
        joules_an_answer=joules / float(shared_by),
    )


def _counterfactual(metered: Metered) -> Counterfactual:
    """The same tokens by a model of 500 billion parameters: as well hosted as can be, and as badly.

    Best: 8 bits and as many answers at a time as memory holds, on the device that takes least;
    worst: 16 bits, one answer at a time. Within lies what hosts tell of themselves.
    """
    read, written = max(1.0, metered.tokens_read), max(1.0, metered.tokens_written)
    best = min(
        (_hosted(name, BEST_BITS, read, written, None) for name in HOSTED_DEVICES),
        key=lambda each: each.low,
    )
    usual = _hosted("h100", USUAL_BITS, read, written, 16)
    worst = _hosted("a100-80", USUAL_BITS, read, written, 1)
    told = constants().hosted.answer
    joules = Figure(
        value=usual.value,
        low=best.low,
        high=worst.high,
        kind="assumed",
        source="a roofline of the devices' data sheets",
    )
    return Counterfactual(
        name="a hosted model of 500 billion parameters",
        joules=joules,
        ratio=joules / metered.joules.facility,
        assumptions=[
            f"the same {read:,.0f} tokens read, {written:,.0f} written; dense (with experts less)",
            f"hosts tell of {told.low:g} to {told.high:g} Wh for theirs, often longer",
            "least: 8 bits, full batches, the best of A100, H100 and H200",
            "most: 16 bits, one at a time, A100s; between: 16 at a time, H100s",
        ],
    )


def _hosted(device: str, bits: int, read: float, written: float, batch: float | None) -> Figure:
    model = model_of_size(HOSTED, bits)
    return answer(model, facts_of(device), read=read, written=written, batch=batch).facility


__all__ = ["SHARED_BY", "Labelled", "carbon_of", "embodied_of", "make_sticker",
           "water_of"]  # fmt: skip
