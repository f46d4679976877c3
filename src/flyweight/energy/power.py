"""What this computer takes from one moment to the next, in nanojoules: counted, else modelled.

Without a counter the energy is the CPU time of this process times the watts of a busy core (1 W is
1 nJ a nanosecond). A counter counts the whole chip, idle and at work for anybody; what it says is
parted (parting.py), and how sure that is stands in the range.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flyweight.energy.constants import constants
from flyweight.energy.counters import Counter, find_apple, find_nvml, find_rapl
from flyweight.energy.machine import ComputerHere, computer_kind
from flyweight.energy.parting import Parting
from flyweight.energy.sharing import Nanojoules
from flyweight.figure import Figure, exactly
from flyweight.sticker_card import Boundaries

_PROC = Path("/proc")
_STUCK = 500_000_000  # nanoseconds that a counter may stand still while we work
SURE = 0.3  # a range beyond this share of the value is not called measured


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
    """The sources of one meter. `children`: child processes are ours as well."""

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
        idle = self.computer.facts.idle.value or 0.0
        self._idle = idle * self.computer.scale
        self.parting = Parting(self.computer, busy or busy_time)
        # nanoseconds since a counter moved, and of our work in them
        self._still = self._still_cpu = self._gpu_still = 0
        self._ahead = 0  # nJ that were modelled while it stood still
        self.bounds = [0.0, 0.0, 0.0]  # nJ of counted work that is ours: the least, likely, most

    def start(self) -> None:
        """Begin to count. A counter that cannot be read is left out, and `notes` says so."""
        for counter in (self._cpu, self._gpu):
            if counter is not None:
                try:
                    counter.start()
                except OSError as error:
                    self._give_up(counter, str(error))
        self._last_cpu = self._own_cpu()
        self.parting.start()

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
        if self._cpu is None:
            taken.ours_m, taken.idle_m = self._modelled(taken.cpu, nanoseconds)
            return
        # it moves in steps: what it says then is of all the time since it last moved
        self._still += nanoseconds
        self._still_cpu += taken.cpu
        advance = self._cpu.advance(self._still)
        stuck = self._still > _STUCK and self._still_cpu > _STUCK // 5
        if advance == 0 and not stuck:
            return
        cpu, passed = self._still_cpu, self._still
        self._still = self._still_cpu = 0
        if advance:
            # a counter that only paused tells of the pause as well: that was modelled already
            known, self._ahead = min(self._ahead, advance), 0
            parts = self.parting.part(advance - known, cpu, passed)
            taken.ours_c, taken.others, taken.idle_c = parts.ours, parts.others, parts.idle
            self._bound(parts.least, parts.ours, parts.most)
            return
        self._note_gap(self._cpu)
        taken.ours_m, taken.idle_m = self._modelled(cpu, passed)
        # stuck, it may tell of it later; what could not be believed is never told again
        self._ahead = self._ahead + taken.ours_m + taken.idle_m if advance == 0 else 0

    def _modelled(self, cpu: int, nanoseconds: int) -> tuple[int, int]:
        """nJ of our work, and of idling."""
        return round(self._core * cpu), round(self._idle * nanoseconds)

    def _bound(self, least: float, likely: float, most: float) -> None:
        """Take up how sure the parting of an interval is."""
        for place, each in enumerate((least, likely, most)):
            self.bounds[place] += each

    def _take_gpu(self, taken: Taken, nanoseconds: int) -> None:
        assert self._gpu is not None
        self._gpu_still += nanoseconds
        advance = self._gpu.advance(self._gpu_still)
        if advance == 0:
            return
        passed, self._gpu_still = self._gpu_still, 0
        if advance is None:  # there is nothing to model it by: it is said, and not billed
            self._note_gap(self._gpu)
            return
        idle = min(advance, round(self._gpu.idle_watts * passed))
        taken.idle_c += idle
        if self._gpu.is_ours():
            ours = advance - idle
            taken.ours_c += ours
            self._bound(max(0.0, ours - idle / 2), ours, min(advance, ours + idle / 2))
        else:
            taken.others += advance - idle

    def _note_gap(self, counter: Counter) -> None:
        said = f"{counter.name} ran backwards, leaped or stood still for a while"
        if not any(note.startswith(said) for note in self.notes):
            how = "modelled" if counter is self._cpu else "not known"
            self.notes.append(f"{said}: what was taken then is {how}")

    def _give_up(self, counter: Counter, why: str) -> None:
        how = "modelled" if counter is self._cpu else "not known"
        self.notes.append(f"{counter.name} cannot be read ({why}): its energy is {how}")
        if counter is self._cpu:
            self._cpu = None
        else:
            self._gpu = None

    @property
    def could_learn(self) -> bool:
        """Whether a moment of calm would tell what the chip takes idle."""
        return self._cpu is not None and self.parting.idle_seen is None

    def figure(self, counted: int, modelled: int) -> Figure:
        """Joules of nanojoules at the chip, with range and source."""
        parts = []
        if counted:
            parts.append(self._counted(counted / 1e9))
        if modelled or not parts:
            parts.append(self.computer.core * (modelled / 1e9 / self._core))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def idle_figure(self, idle: Nanojoules) -> Figure:
        """Joules that the chip took idle: parted off a counter, or assumed of such a computer."""
        counted = exactly(idle.counted / 1e9, "assumed", "what a counter said, parted")
        facts = self.computer.facts.idle
        watts = facts.model_copy(update={"source": f"a {self.computer.kind}'s idle watts"})
        return counted + watts * (idle.modelled / 1e9 / (facts.value or 1.0))

    def _counted(self, joules: float) -> Figure:
        """What counters said: measured where the parting of it is sure, else modelled."""
        used = [each for each in (self._cpu, self._gpu) if each is not None]
        off = max((each.error for each in used), default=constants().counters.rapl)
        source = " and ".join(each.name for each in used) or "a counter of an earlier run"
        least, likely, most = self.bounds
        low = joules * (1 - off) * (least / likely if likely else 1.0)
        high = joules * (1 + off) * (most / likely if likely else 1.0)
        if high - low <= SURE * joules:
            return Figure(value=joules, low=low, high=high, kind="measured", source=source)
        source += ", parted by CPU time"
        return Figure(value=joules, low=low, high=high, kind="modelled", source=source)


def find_power(*, children: bool = False) -> Power:
    """The best sources that this computer has: NVML beside RAPL or Apple's, else the model."""
    notes: list[str] = []
    cpu = find_rapl(notes) or find_apple()
    return Power(children=children, cpu=cpu, gpu=find_nvml(), notes=notes)


def around(chip: Figure, seconds: float, computer: ComputerHere) -> Boundaries:
    """The energy at the chip with what its computer takes in so many seconds, and its building."""
    whole = chip + computer.on * seconds
    if computer.kind != "server":
        return Boundaries(chip=chip, computer=whole, facility=whole)
    return Boundaries(chip=chip, computer=whole, facility=whole * computer.pue)


def busy_time() -> int | None:
    """Nanoseconds that all cores together were busy since the start; None where nobody counts."""
    try:
        with (_PROC / "stat").open() as file:
            user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    return _nanoseconds(user + nice + system + irq + softirq + steal)


def _with_children() -> int:
    """Nanoseconds of CPU time of this process and of its children, ended and running."""
    ended = os.times()
    gone = round((ended.children_user + ended.children_system) * 1e9)
    return time.process_time_ns() + gone + _nanoseconds(sum(_running_children()))


def _running_children() -> list[int]:
    """Ticks that each descendant of this process, running or not waited for yet, has used."""
    parents: dict[int, tuple[int, int]] = {}
    for place in _PROC.glob("[0-9]*/stat"):
        try:
            # the name, in brackets, may hold anything
            told = place.read_text().rpartition(")")[2].split()
            parents[int(place.parent.name)] = (int(told[1]), sum(map(int, told[11:15])))
        except (OSError, ValueError, IndexError):
            continue
    found, above = [], {os.getpid()}
    while above:
        below = {pid for pid, (parent, _) in parents.items() if parent in above}
        found += [parents[pid][1] for pid in below]
        above = below
    return found


def _nanoseconds(ticks: int) -> int:
    return ticks * 10**9 // os.sysconf("SC_CLK_TCK") if ticks else 0


__all__ = ["SURE", "Power", "Taken", "around", "busy_time", "find_power"]
