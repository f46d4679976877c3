"""What a model may take on its device: budgets, and the figures that are held against them."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass

from flyweight.errors import OptionError
from flyweight.folder import bytes_of

# Of a parameter in a file, by bits: Q4_0 is 18 bytes for 32 weights; of an encoder or a model with
# eyes the smallest has 8 bits.
LEAST_BYTES = {4: 0.55, 8: 0.95}
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}


@dataclass(frozen=True)
class Figures:
    """What one file takes, measured or foretold: bytes (memory too), seconds, units a second.

    `speed` is tokens a second in one stream, of what classifies texts a second one at a time.
    """

    parameters: float
    bytes: float
    memory: float
    latency_p50: float
    latency_p95: float
    speed: float


@dataclass(frozen=True)
class Budgets:
    """The most that a model may take, the least that it must do; None where there is no limit."""

    parameters: float | None = None
    bytes: float | None = None  # of its file
    memory: float | None = None  # peak bytes of the process
    latency: float | None = None  # seconds that 95 % of answers keep
    speed: float | None = None  # at least

    @property
    def on_device(self) -> bool:
        """Whether one hangs on the machine."""
        return any(each is not None for each in (self.memory, self.latency, self.speed))

    def __bool__(self) -> bool:
        return any(each is not None for each in asdict(self).values())

    def most_parameters(self, bits: int) -> float:
        """How many parameters a model may have whose smallest file is of so many bits."""
        by_file = math.inf if self.bytes is None else self.bytes / LEAST_BYTES[bits]
        return min(by_file, math.inf if self.parameters is None else self.parameters)

    def exceeded(self, found: Figures) -> str:
        """Why these figures are not within the budgets, in words; empty where they are."""
        from flyweight.make import words

        held = (
            (self.parameters, found.parameters, words.quantity, "parameters"),
            (self.bytes, found.bytes, words.size, "of file"),
            (self.memory, found.memory, words.size, "of memory"),
            (self.latency, found.latency_p95, words.seconds, "for 95 % of answers"),
        )
        for most, value, say, what in held:
            if most is not None and value > most:
                return f"{say(value)} {what}, {say(most)} allowed"
        if self.speed is not None and found.speed < self.speed:
            return f"{words.rate(found.speed)} a second, {words.rate(self.speed)} wanted"
        return ""

    def as_dict(self) -> dict[str, float]:
        """Those that were given."""
        return {name: each for name, each in asdict(self).items() if each is not None}


def read_budgets(
    budget: str | None,
    max_parameters: str | None,
    max_memory: str | None,
    max_latency: str | None,
    min_speed: float | None,
) -> Budgets:
    """Budgets as options give them, or OptionError."""
    if min_speed is not None and not min_speed > 0:
        raise OptionError(f"--min-speed is {min_speed}: give tokens a second, above 0.")
    return Budgets(
        parameters=_read(max_parameters, "--max-parameters", _COUNTS, "800k, 1.5M or 1G"),
        bytes=None if budget is None else bytes_of(budget, "--budget"),
        memory=None if max_memory is None else bytes_of(max_memory, "--max-memory"),
        latency=_read(max_latency, "--max-latency", _SECONDS, "800us, 20ms or 1.5s"),
        speed=min_speed,
    )


def _read(text: str | None, option: str, units: dict[str, float], such_as: str) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Zµ]*)\s*", text)
    if not found or found[2] not in units or float(found[1]) == 0:
        raise OptionError(f"{option} is {text!r}: give {such_as}.")
    return float(found[1]) * units[found[2]]


__all__ = ["LEAST_BYTES", "Budgets", "Figures", "read_budgets"]
