"""A scale of a picture: from values to pixels, and its round values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic scale from the values `low..high` to the pixels `start..end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """The pixel of a value, to a hundredth."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 2)

    def ticks(self, most: int = 6) -> list[float]:
        """At most `most` round values inside; 1, 2, 5 or 1, 3 or powers of ten if logarithmic."""
        if not self.log:
            return self._inside(self._even_values(most))
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for steps in ((1, 2, 5), (1, 3), (1,)):
            values = [
                float(f"{step}e{power}") for power in range(first, last + 1) for step in steps
            ]
            found = self._inside(values)
            if len(found) <= most:
                return found
        return found[:: math.ceil(len(found) / most)]

    def _inside(self, values: Sequence[float]) -> list[float]:
        return [value for value in values if self.low <= value <= self.high]

    def _even_values(self, most: int) -> list[float]:
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(nice * power for nice in _NICE if nice * power >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step)
        return [float(f"{step * (first + index):.12g}") for index in range(most)]
