"""What a sticker says, in words, before it is drawn: so that picture and description agree."""

from __future__ import annotations

from dataclasses import dataclass

from flyweight.energy.sticker_text import clean
from flyweight.energy.sticker_words import (
    ANSWERS,
    BYTES,
    GRAMS,
    JOULES,
    LITRES,
    SECONDS,
    TIMES,
    WATT_HOURS,
    Said,
    Unit,
    amount,
    digits,
    percent,
    said,
    span,
)
from flyweight.sticker_card import Sticker

BRAND = "Flyweight"
TITLE = "Energy per answer"
SPLIT_OF = "of the energy at the chip"
ALL = "all included"
_PLACES = ("At the chip", "Whole computer", "With the building")
_NO_BUILDING = "No data centre"  # around a computer of one's own: what is there is no part of it
NOT_KNOWN = "What making the model took is not known."
_NO_COUNTRY = "no country told: a range"


@dataclass(frozen=True)
class Row:
    """A figure with what it is of; `note` stands above the small print."""

    label: str
    said: Said
    note: str = ""

    @property
    def small(self) -> tuple[str, str]:
        """Two lines of small print: the note or the range, and the kind."""
        known = ", ".join(part for part in (self.said.span, self.said.kind) if part)
        return (self.note, known) if self.note else (self.said.span, self.said.kind)

    @property
    def sentence(self) -> str:
        """The row for those who hear it."""
        extra = f", {self.note}" if self.note else ""
        return f"{self.label}: {self.said}{extra}."


@dataclass(frozen=True)
class View:
    """All that stands on a sticker, cleaned of what breaks a drawing; nothing of it is cut."""

    model: str
    size: str
    task: str
    score: str
    facility: Said  # the headline
    kind: str
    kind_of: tuple[str, str]  # what that word is said of, in two lines
    boundaries: list[Row]
    shares: list[Row]  # reading, writing
    rows: list[Row]
    hosted_name: str
    hosted: str  # how many times as much it takes
    hosted_joules: Said
    assumptions: list[str]
    making: list[Row]  # none where it is not known
    device: str
    metered: str
    fine: list[str]  # sentences

    @property
    def description(self) -> str:
        """The whole sticker in sentences."""
        told = [
            f"{BRAND}: {TITLE.lower()} of {self.model}: {self.facility}, {ALL}.",
            f"{self.kind.capitalize()} {', '.join(self.kind_of)}.",
            f"Size: {self.size}. Task: {self.task}, {self.score}.",
            *(row.sentence for row in self.boundaries),
            *(f"{row.sentence.rstrip('.')}, {SPLIT_OF}." for row in self.shares),
            *(row.sentence for row in self.rows),
            f"{self.hosted_name} {self.hosted}: {self.hosted_joules}.",
            *self.assumptions,
            *([row.sentence for row in self.making] or [NOT_KNOWN]),
            f"Metered on {self.device}: {self.metered}.",
            *self.fine,
        ]
        return " ".join(told)


def view(sticker: Sticker) -> View:
    """The words for all of a sticker."""
    energy, hosted = sticker.joules, sticker.counterfactual
    joules, hosted_here = _joules(sticker), sticker.device.computer == "server"
    places = _PLACES if hosted_here else (*_PLACES[:2], _NO_BUILDING)
    return View(
        model=clean(sticker.model) or "a model without a name",
        size=f"{amount(sticker.bytes, BYTES)} in {sticker.bits} bits",
        task=clean(sticker.task or "") or "none was told",
        score=_score(sticker),
        facility=said(energy.facility, joules),
        kind=sticker.kind,
        kind_of=_kind_of(sticker.kind, energy.facility.kind, hosted_here),
        boundaries=[
            Row(place, said(figure, joules))
            for place, figure in zip(
                places, (energy.chip, energy.computer, energy.facility), strict=True
            )
        ],
        shares=[
            Row(f"Reading {_tokens(sticker.tokens_read)}", said(sticker.reading, joules)),
            Row(f"Writing {_tokens(sticker.tokens_written)}", said(sticker.writing, joules)),
        ],
        rows=_rows(sticker),
        hosted_name=f"{_capital(clean(hosted.name))} takes",
        hosted=f"{span(hosted.ratio.low, hosted.ratio.high, TIMES)} as much",
        hosted_joules=Said(
            span(hosted.joules.low, hosted.joules.high, JOULES), "", hosted.joules.kind
        ),
        assumptions=[_sentence(each) for each in hosted.assumptions],
        making=_making(sticker),
        device=clean(sticker.device.processor) or "a processor without a name",
        metered=_metered(sticker),
        fine=_fine(sticker),
    )


def _joules(sticker: Sticker) -> Unit:
    """Joules with the headline's prefix, so that the figures can be compared at a glance."""
    headline = sticker.joules.facility
    return JOULES.near(headline.high if headline.value is None else headline.value)


def _kind_of(chip: str, facility: str, has_building: bool) -> tuple[str, str]:
    """What the word in the box is said of; all that an answer takes is no better known."""
    rest = "computer and building" if has_building else "the computer around it"
    return ("at the chip", f"and for {rest}" if chip == facility else f"{facility} for {rest}")


def _score(sticker: Sticker) -> str:
    if sticker.score is None:
        return "not scored"
    return f"{percent(sticker.score)} {clean(sticker.score_name or 'right')}"


def _tokens(number: float) -> str:
    told = digits(number, 3)
    return f"{told} token{'' if told == '1' else 's'}"


def _rows(sticker: Sticker) -> list[Row]:
    right = sticker.joules_a_correct_answer
    grid = "" if sticker.country else _NO_COUNTRY
    return [
        Row("Per correct answer", said(right, _joules(sticker)))
        if right
        else Row("Per correct answer", _no_right_one(sticker)),
        Row("One phone charge", said(sticker.answers_a_phone_charge, ANSWERS)),
        Row("One 500 mL bottle", said(sticker.answers_a_bottle, ANSWERS)),
        Row("CO₂e per answer", said(sticker.carbon, GRAMS), grid),
    ]


def _no_right_one(sticker: Sticker) -> Said:
    """Why there is no cost of a correct answer."""
    if sticker.score is None:
        return Said("not known", "", "not scored")
    return Said("none is right", "", "scored")


def _making(sticker: Sticker) -> list[Row]:
    made = sticker.making
    if made is None:
        return []
    carbon, joules = said(made.carbon, GRAMS), said(made.joules_an_answer, _joules(sticker))
    return [
        Row(
            "Making the model",
            said(made.kwh * 1000, WATT_HOURS.near(1000)),
            f"{carbon.text} of CO₂e, {carbon.kind}",
        ),
        Row(
            "Its share",
            Said(f"{joules.text} more an answer", joules.span, joules.kind),
            f"over {amount(made.answers, ANSWERS)}",
        ),
    ]


def _metered(sticker: Sticker) -> str:
    device = sticker.device
    cores = f"{device.cores:,} core{'' if device.cores == 1 else 's'}"
    each = amount(sticker.seconds, SECONDS)
    return ", ".join([
        clean(device.computer), cores, clean(sticker.engine),
        f"{amount(sticker.answers, ANSWERS)} of {each}",
    ])  # fmt: skip


def _fine(sticker: Sticker) -> list[str]:
    """Small print: where and when, then what a reader has to know."""
    place = f"Grid of {clean(sticker.country)}" if sticker.country else _NO_COUNTRY.capitalize()
    embodied, water = said(sticker.embodied_carbon, GRAMS), said(sticker.water, LITRES)
    return [
        f"Constants of {clean(sticker.constants)}. {place}. Made {clean(sticker.made)[:10]}.",
        *map(_sentence, sticker.notes),
        f"Water per answer: {water}.",
        f"Making the computer adds CO₂e: {embodied}.",
    ]


def _sentence(text: str) -> str:
    return f"{_capital(clean(text).rstrip('.'))}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


__all__ = ["ALL", "BRAND", "NOT_KNOWN", "SPLIT_OF", "TITLE", "Row", "View", "view"]
