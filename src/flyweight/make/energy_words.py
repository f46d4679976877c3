"""Energy and carbon as people read them, in the quote, the report and the model card."""

from __future__ import annotations

from flyweight.card import QuoteCard
from flyweight.energy.sticker_words import ANSWERS, GRAMS, JOULES, WATT_HOURS, amount, said
from flyweight.sticker_card import Sticker


def sticker_line(sticker: Sticker) -> str:
    """A sticker in a sentence."""
    return (
        f"An answer takes {said(sticker.joules.facility, JOULES)}, all that the computer takes "
        f"included; one phone charge is {said(sticker.answers_a_phone_charge, ANSWERS)}. At the "
        f"chip it is {said(sticker.joules.chip, JOULES)}."
    )


def quote_energy(quote: QuoteCard) -> str:
    """Energy and carbon, foretold and as metered, with their ranges; empty where neither is known.

    "Energy: 12 Wh (5 to 30 Wh, assumed) foretold, 9 Wh (4 to 20 Wh, modelled) metered; CO2e: ...".
    """
    rows = [
        ("Energy", WATT_HOURS, quote.energy, quote.actual_energy),
        ("CO2e", GRAMS, quote.carbon, quote.actual_carbon),
    ]
    parts = []
    for name, unit, before, after in rows:
        told = [
            f"{said(figure * 1000.0, unit)} {word}"
            for figure, word in ((before, "foretold"), (after, "metered"))
            if figure is not None
        ]
        if told:
            parts.append(f"{name}: {', '.join(told)}")
    return "; ".join(parts)


def watt_hours(kwh: float) -> str:
    """So many kWh with the prefix that fits: "12 Wh"."""
    return amount(kwh * 1000, WATT_HOURS)


def grams(kilograms: float) -> str:
    """So many kg with the prefix that fits."""
    return amount(kilograms * 1000, GRAMS)


__all__ = ["grams", "quote_energy", "sticker_line", "watt_hours"]
