"""How what a counter says of a chip is parted: our work, that of others, and idling.

What the chip takes idle is learned where it is seen idle for a moment: then all above it is work,
shared by CPU time. Before, the model parts it: watts of busy cores beside those of idling, within
wide bounds. Nothing that worked is ever given nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from flyweight.energy.machine import ComputerHere
from flyweight.figure import Figure

WINDOW = 250_000_000  # nanoseconds after which it is seen anew how busy the chip is
_FIRST = 40_000_000  # before the first one is over: the system counts in ticks of 10 ms
_CALM = 0.1  # cores: fewer busy ones are none
_OFF = 0.1  # how far what was seen idle may be off


@dataclass
class Parts:
    """Nanojoules of an interval; `ours` lies between `least` and `most`."""

    ours: int
    others: int
    idle: int
    least: float
    most: float


@dataclass
class Parting:
    """Parts a chip's energy; `busy` gives the nanoseconds that all its cores were busy so far."""

    computer: ComputerHere
    busy: Callable[[], int | None]
    idle_seen: float | None = None  # watts, the least of a calm window
    _rate: float | None = None  # cores that are busy of late
    _then: int | None = None
    _passed: int = 0
    _taken: int = 0  # nJ of this window
    _assumed: Figure = field(init=False)

    def __post_init__(self) -> None:
        # a counter is of the whole chip, also where this process may use a part of it
        scale = self.computer.facts.scale(os.cpu_count() or self.computer.cores)
        self._assumed = self.computer.facts.idle * float(scale)

    def start(self) -> None:
        """Begin to watch."""
        self._then, self._passed, self._taken = self.busy(), 0, 0

    def part(self, advance: int, cpu: int, nanoseconds: int) -> Parts:
        """The parts of so many nJ, of which our threads ran `cpu` nanoseconds."""
        self._look(advance, nanoseconds)
        busy = max(cpu, round((self._rate or 0.0) * nanoseconds))
        found = self._above_idle(advance, cpu, busy, nanoseconds)
        if found is None:
            found = self._by_model(advance, cpu, busy, nanoseconds)
        return found

    def _look(self, advance: int, nanoseconds: int) -> None:
        """See how busy the chip is, and what it takes when it is not."""
        self._passed += nanoseconds
        self._taken += advance
        if self._passed < (_FIRST if self._rate is None else WINDOW):
            return
        now, passed, taken = self.busy(), self._passed, self._taken
        if now is not None and self._then is not None:
            self._rate = max(0, now - self._then) / passed
            if self._rate < _CALM and passed >= WINDOW and taken:
                self.idle_seen = min(self.idle_seen or float("inf"), taken / passed)
        if passed >= WINDOW or self._rate is None:
            self._then, self._passed, self._taken = now, 0, 0

    def _above_idle(self, advance: int, cpu: int, busy: int, nanoseconds: int) -> Parts | None:
        """By what was seen idle; None where nothing was, or nothing would be left for our work."""
        if self.idle_seen is None:
            return None
        idle = self.idle_seen * nanoseconds
        active = round(advance - idle)
        if active <= 0 < cpu:
            return None
        active, share = max(0, active), cpu / busy if busy else 0.0
        ours = round(active * share)
        others = active - ours if busy else 0
        least = max(0.0, advance - idle * (1 + _OFF)) * share
        most = max(0.0, advance - idle * (1 - _OFF)) * share
        return Parts(ours, others, advance - ours - others, least, most)

    def _by_model(self, advance: int, cpu: int, busy: int, nanoseconds: int) -> Parts:
        core, idle = self.computer.core, self._assumed

        def a_nanosecond(watts: float, nothing: float) -> float:
            whole = watts * busy + nothing * nanoseconds
            return advance * watts / whole if whole else 0.0

        likely = a_nanosecond(core.value or 0.0, idle.value or 0.0)
        ours = min(advance, round(likely * cpu))
        others = min(advance - ours, round(likely * (busy - cpu)))
        return Parts(
            ours,
            others,
            advance - ours - others,
            a_nanosecond(core.low, idle.high) * cpu,
            a_nanosecond(core.high, idle.low) * cpu,
        )


__all__ = ["WINDOW", "Parting", "Parts"]
