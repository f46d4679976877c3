"""How what was taken in an interval is shared among those who worked in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

Worker = TypeVar("Worker")
Share = tuple[int, Worker | None, bool]  # weight, whose, whether it is of the prompt


@dataclass
class Nanojoules:
    """What something took: counted, modelled, and for how many ns the computer was `on` for it.

    These are the parts that add up. `Meter.joules` makes a figure of them.
    """

    counted: int = 0
    modelled: int = 0
    on: int = 0

    def __add__(self, other: Nanojoules) -> Nanojoules:
        return Nanojoules(
            self.counted + other.counted,
            self.modelled + other.modelled,
            self.on + other.on,
        )

    def __sub__(self, other: Nanojoules) -> Nanojoules:
        return Nanojoules(
            self.counted - other.counted,
            self.modelled - other.modelled,
            self.on - other.on,
        )

    @property
    def whole(self) -> int:
        """Nanojoules."""
        return self.counted + self.modelled


def shares_of(
    threads: Mapping[Worker, int], engines: list[tuple[int, Worker, bool]], cpu: int
) -> list[Share[Worker]]:
    """Weights of an interval: (weight, whose, of its prompt), which need not add up to anything.

    Threads weigh the nanoseconds that they ran. What is left of the process's `cpu` is shared by
    tokens where engines worked, and is nobody's where not.
    """
    shares: list[Share[Worker]] = [(ran, account, False) for account, ran in threads.items()]
    left = max(0, cpu - sum(threads.values()))
    if not engines:
        return [*shares, (left, None, False)] if left else shares
    if not threads:
        return [*engines]
    tokens = sum(weight for weight, _, _ in engines)
    # in whole numbers: threads weigh nanoseconds times all tokens, a token what is left
    scaled = [(ran * tokens, account, reads) for ran, account, reads in shares]
    return [*scaled, *((weight * left, account, reads) for weight, account, reads in engines)]


def thread_clock(thread: int) -> int | None:
    """The clock of a thread's CPU time; None where a system has none."""
    try:
        return time.pthread_getcpuclockid(thread)
    except (AttributeError, OSError):  # Windows has none
        return None


def cpu_of(clock: int | None, thread: int) -> int:
    """Nanoseconds that a thread ran; of one that has ended, or cannot be asked from here, 0."""
    try:
        if clock is not None:
            return time.clock_gettime_ns(clock)
        return time.thread_time_ns() if threading.get_ident() == thread else 0
    except OSError:
        return 0


__all__ = ["Nanojoules", "Share", "cpu_of", "shares_of", "thread_clock"]
