"""What this computer takes from one moment to the next, in nanojoules: counted, else modelled.

A counter counts the whole chip. What is ours of that is what is above idle times our share of the
time that its cores were busy; what others had is told apart, never billed. Without a counter the
energy is the CPU time of this process times the watts of a busy core (1 W is 1 nJ a nanosecond).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flyweight.energy.counters import Counter, find_apple, find_nvml, find_rapl
from flyweight.energy.machine import ComputerHere, computer_kind
from flyweight.figure import Figure, exactly
from flyweight.sticker_card import Boundaries

_STAT = Path("/proc/stat")
_TICK = 10**7  # nanoseconds of a tick of /proc/stat
_WINDOW = 25 * _TICK  # busy time after which our share of it is worked out anew
_STUCK = 50_000_000  # nanoseconds of our work in which a counter that stands still is stuck


@dataclass
class Taken:
    """Nanojoules of an interval: our work's, others' work, and idle; `c` counted, `m` modelled."""

    ours_c: int = 0
    ours_m: int = 0
    others: int = 0
    idle_c: int = 0
    idle_m: int = 0
    cpu: int = 0  # nanoseconds that our threads ran

    @property
    def whole(self) -> int:
        """All of it."""
        return self.ours_c + self.ours_m + self.others + self.idle_c + self.idle_m


class Power:
    """The sources of one meter. `children`: ended child processes are ours as well."""

    def __init__(
        self,
        *,
        children: bool = False,
        cpu: Counter | None = None,
        gpu: Counter | None = None,
        computer: ComputerHere | None = None,
        notes: list[str] | None = None,
        busy: Callable[[], int | None] | None = None,
    ) -> None:
        self.notes = notes if notes is not None else []
        self.computer = computer or computer_kind()
        self._cpu, self._gpu = cpu, gpu
        self._own_cpu = _with_children if children else time.process_time_ns
        self._core = self.computer.core.value or 0.0  # W, and nJ a nanosecond
        self.idle_watts = self.computer.facts.idle * self.computer.scale
        self._idle = self.idle_watts.value or 0.0
        self._busy = busy or busy_time
        self._share = 1.0
        self._still = 0  # nanoseconds of work since a counter last moved

    def start(self) -> None:
        """Begin to count. A counter that cannot be read is left out, and `notes` says so."""
        for counter in (self._cpu, self._gpu):
            if counter is not None:
                try:
                    counter.start()
                except OSError as error:
                    self._give_up(counter, str(error))
        self._last_cpu = self._own_cpu()
        self._busy_then, self._cpu_then = self._busy(), self._last_cpu

    def take(self, nanoseconds: int) -> Taken:
        """What was taken since the last call, so long ago."""
        now = self._own_cpu()
        taken = Taken(cpu=max(0, now - self._last_cpu))
        self._last_cpu = now
        self._take_cpu(taken, nanoseconds)
        if self._gpu is not None:
            self._take_gpu(taken, nanoseconds)
        return taken

    def _take_cpu(self, taken: Taken, nanoseconds: int) -> None:
        advance = None if self._cpu is None else self._cpu.advance(nanoseconds)
        idle = round(self._idle * nanoseconds)
        self._still = 0 if advance else self._still + taken.cpu
        if advance is None or self._still > _STUCK:
            if self._cpu is not None:
                self._note_gap(self._cpu)
            taken.ours_m, taken.idle_m = round(self._core * self._still), idle
            self._still = 0
            return
        taken.idle_c = min(idle, advance)
        active = advance - taken.idle_c
        taken.ours_c = round(active * self._share_of_busy())
        taken.others = active - taken.ours_c

    def _take_gpu(self, taken: Taken, nanoseconds: int) -> None:
        assert self._gpu is not None
        advance = self._gpu.advance(nanoseconds)
        if advance is None:  # there is nothing to model it by: it is said, and not billed
            self._note_gap(self._gpu)
            return
        idle = min(advance, round(self._gpu.idle_watts * nanoseconds))
        taken.idle_c += idle
        if self._gpu.is_ours():
            taken.ours_c += advance - idle
        else:
            taken.others += advance - idle

    def _share_of_busy(self) -> float:
        """Our share of the time that cores were busy, of late: the system counts it in ticks."""
        busy = self._busy()
        if busy is None or self._busy_then is None:
            return 1.0
        passed, ours = busy - self._busy_then, self._last_cpu - self._cpu_then
        if passed <= 0:
            return self._share if ours else 0.0
        share = min(1.0, ours / max(passed, ours))
        if passed >= _WINDOW:
            self._share, self._busy_then, self._cpu_then = share, busy, self._last_cpu
        return share

    def _note_gap(self, counter: Counter) -> None:
        said = f"{counter.name} ran backwards, leaped or stood still for a while"
        if not any(note.startswith(said) for note in self.notes):
            how = "modelled" if counter is self._cpu else "not known"
            self.notes.append(f"{said}: what was taken then is {how}")

    def _give_up(self, counter: Counter, why: str) -> None:
        self.notes.append(f"{counter.name} cannot be read ({why}): energy is modelled")
        if counter is self._cpu:
            self._cpu = None
        else:
            self._gpu = None

    def figure(self, counted: int, modelled: int) -> Figure:
        """Joules of nanojoules, with range and source."""
        parts = []
        if counted:
            used = [each for each in (self._cpu, self._gpu) if each is not None]
            off = max(each.error for each in used)
            joules, names = counted / 1e9, " and ".join(each.name for each in used)
            low, high = joules * (1 - off), joules * (1 + off)
            parts.append(Figure(value=joules, low=low, high=high, kind="measured", source=names))
        if modelled or not parts:
            core = self.computer.core
            parts.append(core * (modelled / 1e9 / self._core))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def idle_figure(self, counted: int, modelled: int) -> Figure:
        """The same of what was taken idle: never better than assumed, since nobody measured it."""
        known = exactly(counted / 1e9, "assumed", "the counter's, up to what an idle chip takes")
        if not modelled:
            return known
        assumed = self.idle_watts * (modelled / 1e9 / self._idle)
        source = f"a {self.computer.kind}'s idle watts"
        return known * float(bool(counted)) + assumed.model_copy(update={"source": source})

    @property
    def source(self) -> str:
        """What the processor's energy is known by."""
        return self._cpu.name if self._cpu is not None else self.computer.core.source


def find_power(*, children: bool = False) -> Power:
    """The best sources that this computer has: NVML beside RAPL or Apple's, else the model."""
    notes: list[str] = []
    cpu = find_rapl(notes) or find_apple()
    return Power(children=children, cpu=cpu, gpu=find_nvml(), notes=notes)


def around(chip: Figure, seconds: float, computer: ComputerHere) -> Boundaries:
    """The energy at the chip with what its computer takes in so many seconds, and its building."""
    on = (computer.facts.idle + computer.facts.rest) * (computer.scale * seconds)
    told = on.model_copy(update={"source": f"a {computer.kind}'s watts while it is on"})
    whole, pue = chip + told, computer.facts.pue
    if computer.kind != "server":
        return Boundaries(chip=chip, computer=whole, facility=whole)
    named = pue.model_copy(update={"source": f"PUE {pue.low:g} to {pue.high:g}"})
    return Boundaries(chip=chip, computer=whole, facility=whole * named)


def busy_time() -> int | None:
    """Nanoseconds that all cores together were busy since the start; None where nobody counts."""
    try:
        with _STAT.open() as file:
            parts = [int(part) for part in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _, _, irq, softirq, steal = parts
    ticks = user + nice + system + irq + softirq + steal
    return ticks * 10**9 // os.sysconf("SC_CLK_TCK")


def _with_children() -> int:
    """CPU time of this process and of its children that have ended, in nanoseconds."""
    ended = os.times()
    return time.process_time_ns() + round((ended.children_user + ended.children_system) * 1e9)


__all__ = ["Power", "Taken", "around", "busy_time", "find_power"]
