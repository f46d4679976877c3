"""This machine as a device to plan for: what it has and reaches is measured, watts are assumed."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from flyweight.energy.constants import DeviceFacts
from flyweight.energy.machine import ComputerHere, computer_kind
from flyweight.energy.planning import Device
from flyweight.errors import OptionError
from flyweight.progress import bar
from flyweight.runtime.bandwidth import read_speed
from flyweight.runtime.hardware import processor

_READ = 4 * 10**8  # bytes that are read to time memory: no cache holds them
_WIDTH = 1024  # of the matrices that are multiplied
_TRIES = 5


def this_machine() -> Device:
    """The processor of this machine and its memory; an accelerator is left out.

    Memory is all that there is; bandwidth and arithmetic are the best of a few tries. OptionError
    where the system does not tell its memory.
    """
    computer = computer_kind()
    with bar("measuring this machine", 2) as running:
        bandwidth = read_speed(min(_READ, memory_here() // 8))
        running.advance()
        flops = _arithmetic()
        running.advance()
    return Device("this", _facts(computer, bandwidth, flops))


def _facts(computer: ComputerHere, bandwidth: float, flops: float) -> DeviceFacts:
    """Watts of all its cores at work, of the idle chip and of the rest, by the kind it is of."""
    kind = computer.facts
    idle = kind.idle * computer.scale
    return DeviceFacts(
        memory=memory_here(),
        bandwidth=bandwidth,
        flops=flops,
        busy=computer.core * float(computer.cores) + idle,
        idle=idle,
        rest=kind.rest * computer.scale,
        computer=computer.kind,
        embodied=kind.embodied * computer.scale,
        years=kind.years,
        source=(
            f"{processor()}: memory, bandwidth and arithmetic measured; watts of a {computer.kind} "
            f"with {computer.cores} cores ({computer.source}): {kind.source}"
        ),
    )


def memory_here() -> int:
    """Bytes of memory that there are, in a container what it may have of them."""
    found = []
    with suppress(AttributeError, OSError, ValueError):  # not every system tells
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    if not found:
        raise OptionError("this machine does not say how much memory it has: give another --device")
    return min(found)


def _arithmetic() -> float:
    """Operations a second of a product of matrices, in the faster of 32 and 16 bits."""
    import torch

    best = 0.0
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(_WIDTH, _WIDTH, dtype=dtype)
        for _ in range(_TRIES):
            started = time.perf_counter()
            torch.mm(matrix, matrix)
            best = max(best, 2 * _WIDTH**3 / (time.perf_counter() - started))
    return best


__all__ = ["this_machine"]
