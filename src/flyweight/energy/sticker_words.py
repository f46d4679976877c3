"""The sticker's numbers as people read them: two digits, the right prefix, and how far off.

Two significant digits, since no figure of a sticker is known better: 0.4 J, 1.9 J, 380 answers,
1.2 million answers. Wording of its own, for the energy layer stands below the report's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from flyweight.figure import Figure

_PLAIN = 0.1  # from which share of it on the plain unit is taken: 0.4 J, not 400 mJ
_NEAR = (0.01, 1000)  # numbers that may be told in the unit of the number beside them


@dataclass(frozen=True)
class Unit:
    """What a number counts, and the prefixes that it takes: (factor, prefix), small ones first.

    `spaced` puts a space between prefix and name, as words have it: "1.2 million answers".
    `favoured` is the step that is taken where the number reads well in it.
    """

    name: str
    steps: tuple[tuple[float, str], ...]
    spaced: bool = False
    digits: int = 2
    favoured: tuple[float, str] | None = None

    def near(self, value: float) -> Unit:
        """This unit, with the prefix of `value` wherever that reads well: 0.05 J beside 0.4 J."""
        return replace(self, favoured=self.step(value))

    def written(self, value: float) -> tuple[str, str]:
        """The number and its unit apart: 0.00042 J is ("420", "µJ")."""
        factor, prefix = self.step(value)
        number = digits(value / factor, self.digits)
        name = "answer" if (number, prefix, self.name) == ("1", "", "answers") else self.name
        return number, prefix + (" " if self.spaced and prefix else "") + name

    def step(self, value: float) -> tuple[float, str]:
        """The greatest step that is not too great; the plain unit from a tenth of it on."""
        rounded = _rounded(value, self.digits)
        if self.favoured and self.fits(rounded / self.favoured[0]):
            return self.favoured
        if rounded == 0:
            return 1.0, ""
        fit = [
            (factor, prefix)
            for factor, prefix in self.steps
            if rounded >= factor * (_PLAIN if factor == 1 else 1) * (1 - 1e-9)
        ]
        return fit[-1] if fit else self.steps[0]

    def fits(self, number: float) -> bool:
        """Whether a number reads well with the prefix of its neighbour; words start at one."""
        return number == 0 or max(_NEAR[0], self.spaced) * (1 - 1e-9) <= number < _NEAR[1]


_COUNTED = ((1.0, ""), (1e6, "million"), (1e9, "billion"), (1e12, "trillion"))
JOULES = Unit("J", ((1e-6, "µ"), (1e-3, "m"), (1.0, ""), (1e3, "k")))
GRAMS = Unit("g", ((1e-6, "µ"), (1e-3, "m"), (1.0, ""), (1e3, "k")))
LITRES = Unit("L", ((1e-6, "µ"), (1e-3, "m"), (1.0, "")))
WATT_HOURS = Unit("Wh", ((1e-3, "m"), (1.0, ""), (1e3, "k"), (1e6, "M")))
SECONDS = Unit("s", ((1e-6, "µ"), (1e-3, "m"), (1.0, "")))
BYTES = Unit("B", ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")), digits=3)
ANSWERS = Unit("answers", _COUNTED, spaced=True)
TIMES = Unit("times", _COUNTED, spaced=True)


@dataclass(frozen=True)
class Said:
    """A figure in words: `text` is its value, or its range where only that is known.

    `span` is the range where the text is a value that has one, else empty.
    """

    text: str
    span: str
    kind: str

    def __str__(self) -> str:
        return (
            f"{self.text} ({self.span}, {self.kind})" if self.span else f"{self.text} ({self.kind})"
        )


def said(figure: Figure, unit: Unit) -> Said:
    """A figure's value and its range, in a unit."""
    if figure.value is None:
        return Said(span(figure.low, figure.high, unit), "", figure.kind)
    text = amount(figure.value, unit)
    around = span(figure.low, figure.high, unit)
    if around == text:
        return Said(text, "", figure.kind)
    # words stand once: "1.2 million answers (0.4 to 3 million)"
    return Said(text, around.removesuffix(f" {unit.name}") if unit.spaced else around, figure.kind)


def amount(value: float, unit: Unit) -> str:
    """A number with its unit: "1.9 J", "380 answers"; "no limit" where there is none."""
    return " ".join(unit.written(value)) if math.isfinite(value) else "no limit"


def span(low: float, high: float, unit: Unit) -> str:
    """A range: "0.4 to 1.9 J", "4 mJ to 1.9 J", "24,000 answers or more".

    One number where both ends read alike. The unit stands once where both ends fit it.
    """
    if not math.isfinite(low):
        return "no limit"
    if not math.isfinite(high):
        return f"{amount(low, unit)} or more"
    if amount(low, unit) == amount(high, unit):
        return amount(high, unit)
    factor, _ = unit.step(high)
    if unit.fits(_rounded(low / factor, unit.digits)):
        return f"{digits(low / factor, unit.digits)} to {amount(high, unit)}"
    start = amount(low, unit)
    if unit.spaced:  # words count one thing: "24,000 to 1.2 million answers"
        start = start.removesuffix(f" {unit.name}")
    return f"{start} to {amount(high, unit)}"


def digits(value: float, count: int = 2) -> str:
    """A number to so many significant digits, without exponent: 0.4, 1.9, 380, 74,000."""
    rounded = _rounded(value, count)
    if rounded == 0:
        return "0"
    if not 1e-9 <= rounded < 1e15:
        return f"{rounded:.{count - 1}e}"
    decimals = max(0, count - 1 - math.floor(math.log10(rounded) + 1e-9))
    text = f"{rounded:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def percent(share: float) -> str:
    """A share as a percentage: "97.8 %". What is not the whole never reads as 100 %."""
    shown = round(share * 100, 1)
    return f"{99.9 if shown >= 100 > share * 100 else shown:g} %"


def _rounded(value: float, count: int) -> float:
    return float(f"{value:.{count - 1}e}")


__all__ = [
    "ANSWERS", "BYTES", "GRAMS", "JOULES", "LITRES", "SECONDS", "TIMES", "WATT_HOURS", "Said",
    "Unit", "amount", "digits", "percent", "said", "span",
]  # fmt: skip
