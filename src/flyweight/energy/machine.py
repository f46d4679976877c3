"""What kind of computer this is, which decides the watts that are assumed where nothing is counted.

Told by FLYWEIGHT_COMPUTER (server, desktop, laptop, phone, board), else concluded from what the
system says of itself.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from flyweight.energy.constants import Computer, ComputerKind, constants
from flyweight.errors import OptionError
from flyweight.figure import Figure

_SERVER_CHIPS = re.compile(r"xeon|epyc|opteron|neoverse|graviton|altra|grace", re.IGNORECASE)
_WATTS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:(?:-|to)\s*(\d+(?:\.\d+)?))?\s*W?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class ComputerHere:
    """This computer: its kind, how that is known, its cores, and the watts that go with it."""

    kind: ComputerKind
    source: str
    cores: int
    facts: Computer
    core: Figure  # watts of a busy core above idle

    @property
    def scale(self) -> float:
        """How many times the facts' `idle`, `rest` and `embodied` count for it."""
        return float(self.facts.scale(self.cores))

    @cached_property
    def on(self) -> Figure:
        """Watts that it takes while it is on, whatever it does."""
        watts = (self.facts.idle + self.facts.rest) * self.scale
        return watts.model_copy(update={"source": f"a {self.kind}'s watts while it is on"})

    @cached_property
    def pue(self) -> Figure:
        """How many times that its building takes, where it stands in a data centre."""
        pue = self.facts.pue
        return pue.model_copy(update={"source": f"PUE {pue.low:g} to {pue.high:g}"})


@cache
def _kind_of(told: str | None) -> tuple[ComputerKind, str]:
    kinds = constants().computers
    if told:
        for kind in kinds:
            if told.lower() == kind:
                return kind, "told"
        raise OptionError(f"FLYWEIGHT_COMPUTER is {told[:40]!r}: give {', '.join(kinds)}")
    return _concluded(Path("/"), platform.machine(), sys.platform)


def _concluded(root: Path, machine: str, system: str) -> tuple[ComputerKind, str]:
    """The kind that the files below `root` speak for."""
    model = _text(root / "proc/device-tree/model") + _text(root / "sys/firmware/devicetree/model")
    if hasattr(sys, "getandroidapilevel") or (root / "system/build.prop").exists():
        return "phone", "it runs Android"
    if re.search(r"raspberry|jetson|rock|orange pi|beagle", model, re.IGNORECASE):
        return "board", f"it is a {model.strip(chr(0)).strip()}"
    if system == "darwin":
        return "laptop", "it is a Mac"  # those on a desk have the same chips
    supplies = root / "sys/class/power_supply"
    if supplies.is_dir() and any(map(_is_battery, supplies.iterdir())):
        return "laptop", "it has a battery"
    processor = _text(root / "proc/cpuinfo")
    if _SERVER_CHIPS.search(processor):
        return "server", "its processor is one of servers"
    if re.search(r"^flags\s*:.*\bhypervisor\b", processor, re.MULTILINE):
        return "server", "it is a virtual machine"
    return "desktop", "nothing speaks for another kind"


def _is_battery(supply: Path) -> bool:
    """Whether it is the computer's own, not that of a mouse."""
    return _text(supply / "type") == "Battery" and _text(supply / "scope") != "Device"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def computer_kind() -> ComputerHere:
    """This computer. OptionError where FLYWEIGHT_COMPUTER or FLYWEIGHT_WATTS says nonsense.

    FLYWEIGHT_WATTS ("6" or "4-9") replaces the watts that a busy core is taken for.
    """
    kind, source = _kind_of(os.environ.get("FLYWEIGHT_COMPUTER"))
    facts = constants().computers[kind]
    return ComputerHere(kind, source, cores(), facts, _core_watts(facts, kind))


def _core_watts(facts: Computer, kind: ComputerKind) -> Figure:
    told = os.environ.get("FLYWEIGHT_WATTS")
    if not told:
        core = facts.core
        source = f"CPU time at {core.low:g} to {core.high:g} W a core of a {kind}"
        return core.model_copy(update={"kind": "modelled", "source": source})
    found = _WATTS.fullmatch(told)
    low = float(found[1]) if found else 0.0
    high = float(found[2]) if found and found[2] else low
    if not 0 < low <= high < 1e4:
        raise OptionError(
            f"FLYWEIGHT_WATTS is {told[:40]!r}: give the watts of a busy core, such as 6 or 4-9"
        )
    source = f"CPU time at {low:g}{f' to {high:g}' if high > low else ''} W a core, as told"
    return Figure(value=(low + high) / 2, low=low, high=high, kind="modelled", source=source)


def processor() -> str:
    """This machine's processor, by the name that the system tells."""
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def cores() -> int:
    """Cores (hardware threads) that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


__all__ = ["ComputerHere", "computer_kind", "cores", "processor"]
