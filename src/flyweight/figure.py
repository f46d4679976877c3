"""A number that says where it comes from, and how far off it may be.

`low` and `high` are what is thought possible, not a confidence interval. The kind of a figure that
was worked out of others is the weakest of theirs: what was measured and multiplied by an assumption
is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

Kind = Literal["measured", "modelled", "assumed"]
KINDS: tuple[Kind, ...] = ("measured", "modelled", "assumed")  # the strongest first


class Frozen(BaseModel):
    """What is read and written as JSON and never changes; unknown fields are refused."""

    # an upper limit may be infinite: JSON has no number for it
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Figure(Frozen):
    """A number 0 or more, with its range, kind and source.

    `value` None: only the range is known, and no number in it is more likely than another.
    """

    value: float | None
    low: float
    high: float
    kind: Kind
    source: str = ""  # in words: "RAPL", "CPU time at 2 to 8 W a core"; several with "; "

    @model_validator(mode="after")
    def _in_order(self) -> Figure:
        told = [self.low, self.high] if self.value is None else [self.low, self.value, self.high]
        if self.low < 0 or any(math.isnan(each) for each in told) or told != sorted(told):
            raise ValueError(f"{told} are not the low, the value and the high of a quantity")
        return self

    def __add__(self, other: Figure) -> Figure:
        value = None if None in (self.value, other.value) else self._value + other._value
        return self._with(other, value, self.low + other.low, self.high + other.high)

    def __mul__(self, other: Figure | float) -> Figure:
        if not isinstance(other, Figure):
            other = exactly(other, self.kind)
        value = None if None in (self.value, other.value) else self._value * other._value
        return self._with(other, value, self.low * other.low, self.high * other.high)

    def __truediv__(self, other: Figure | float) -> Figure:
        """Raises ZeroDivisionError where the other one may be 0."""
        if not isinstance(other, Figure):
            other = exactly(other, self.kind)
        value = None if None in (self.value, other.value) else self._value / other._value
        return self._with(other, value, self.low / other.high, self.high / other.low)

    __rmul__ = __mul__

    @property
    def middle(self) -> float:
        """The value, or where only the range is known, the middle of that."""
        return (self.low + self.high) / 2 if self.value is None else self.value

    @property
    def _value(self) -> float:
        assert self.value is not None
        return self.value

    def _with(self, other: Figure, value: float | None, low: float, high: float) -> Figure:
        # a rounding error must not push the value out of its range
        value = value if value is None else min(max(value, low), high)
        kind: Kind = max((self.kind, other.kind), key=KINDS.index)
        said = dict.fromkeys(part for each in (self, other) for part in each.source.split("; "))
        source = "; ".join(part for part in said if part)
        # in order by what they come from: checking it again would be most of the time
        return Figure.model_construct(value=value, low=low, high=high, kind=kind, source=source)


def exactly(value: float, kind: Kind = "measured", source: str = "") -> Figure:
    """A number without a range."""
    return Figure(value=value, low=value, high=value, kind=kind, source=source)


def total(figures: Iterable[Figure]) -> Figure:
    """The sum; of none it is exactly 0."""
    found = exactly(0.0)
    for each in figures:
        found = found + each
    return found


__all__ = ["KINDS", "Figure", "Frozen", "Kind", "exactly", "total"]
