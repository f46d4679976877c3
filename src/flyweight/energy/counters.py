"""Counters of energy that hardware has, read as nanojoules: NVML, RAPL, Apple's.

What a counter says between two readings is its advance: where it wraps, the way round; where it
runs backwards otherwise, or leaps beyond what any hardware takes, nothing that could be believed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flyweight.energy.constants import constants

POWERCAP = Path("/sys/class/powercap")
_MOST_WATTS = 5_000  # of one domain: nothing takes more
_MOST_WRAPPED = 600  # of one that seems to have wrapped, and may have been set back
_MOST_SLACK = 10**9  # nJ: counters move in steps


@dataclass
class Counter:
    """Domains that count energy: `read` gives nJ of each; `ranges` where each wraps, 0 for never.

    `idle_watts` is what they are taken for when nothing runs, `error` how far they may be off.
    """

    name: str
    error: float
    read: Callable[[], Sequence[int]]
    ranges: Sequence[int] = ()
    idle_watts: float = 0.0
    is_ours: Callable[[], bool] = lambda: True  # whether this process uses what it counts
    _last: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Take the first reading. OSError where the counter cannot be read."""
        try:
            self._last = list(self.read())
        except OSError:
            raise
        except Exception as error:
            raise OSError(str(error)) from error

    def advance(self, nanoseconds: int) -> int | None:
        """nJ since the last reading, so long ago; None where what it says cannot be.

        After None the next call counts from the next reading.
        """
        try:
            now = list(self.read())
        except Exception:  # whatever a driver does, an answer must not fail by it
            now = []
        last, self._last = self._last, now
        if len(last) != len(now) or not now:
            return None
        steps = []
        for place, (old, new) in enumerate(zip(last, now, strict=True)):
            wrapped = new < old
            step = new - old + (self.ranges[place] if wrapped and self.ranges else 0)
            watts = _MOST_WRAPPED if wrapped else _MOST_WATTS
            if not 0 <= step <= watts * nanoseconds + _MOST_SLACK:
                return None
            steps.append(step)
        return sum(steps)


def find_rapl(notes: list[str], root: Path = POWERCAP) -> Counter | None:
    """The processor's packages and memory as Linux counts them; None where it does not.

    Where there are counters that may not be read, `notes` says what grants it.
    """
    domains: dict[Path, int] = {}
    try:
        zones = sorted(root.glob("intel-rapl:*"))  # so AMD's are called as well
        for zone in zones:
            name = (zone / "name").read_text().strip()
            # `core` and `uncore` are within the package, `psys` is around it
            if name.startswith("package") or name == "dram":
                domains[zone / "energy_uj"] = int((zone / "max_energy_range_uj").read_text()) * 1000
        for file in domains:
            file.read_text()
    except PermissionError:
        notes.append(
            "RAPL is there and may not be read, so energy is modelled: "
            f"`sudo chmod a+r {root}/*/energy_uj` grants it until the next start"
        )
        return None
    except (OSError, ValueError):
        return None
    if not domains:
        return None

    def read() -> list[int]:
        try:
            return [int(file.read_text()) * 1000 for file in domains]
        except ValueError as error:
            raise OSError(str(error)) from None

    return Counter("RAPL", constants().counters.rapl, read, list(domains.values()))


def find_apple() -> Counter | None:
    """An Apple chip's own estimates, by zeus-apple-silicon; None elsewhere."""
    if sys.platform != "darwin":
        return None
    try:
        from zeus_apple_silicon import AppleEnergyMonitor  # type: ignore
    except ImportError:
        return None
    monitor = AppleEnergyMonitor()
    parts = ("cpu_total_mj", "gpu_mj", "dram_mj", "ane_mj")

    def read() -> list[int]:
        found = monitor.get_cumulative_energy()
        return [int(getattr(found, part) or 0) * 10**6 for part in parts]

    return Counter("Apple's counters", constants().counters.apple, read)


def find_nvml() -> Counter | None:
    """The NVIDIA devices that this process may see; None where there are none that count."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handles = _visible(pynvml)
        for handle in handles:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # older ones do not count
        limits = [pynvml.nvmlDeviceGetPowerManagementDefaultLimit(each) for each in handles]
    except pynvml.NVMLError:
        return None
    if not handles:
        return None

    def read() -> list[int]:
        try:
            found = [pynvml.nvmlDeviceGetTotalEnergyConsumption(each) for each in handles]
        except pynvml.NVMLError as error:
            raise OSError(str(error)) from None
        return [millijoules * 10**6 for millijoules in found]

    told = constants().counters
    idle = told.gpu_idle * sum(limits) / 1000  # milliwatts
    return Counter("NVML", told.nvml, read, idle_watts=idle, is_ours=_uses_cuda)


def _visible(pynvml: Any) -> list[Any]:
    """Handles of the devices that CUDA_VISIBLE_DEVICES names, by number or UUID; of all without."""
    every = [
        pynvml.nvmlDeviceGetHandleByIndex(place) for place in range(pynvml.nvmlDeviceGetCount())
    ]
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is None:
        return every
    found = []
    for part in (each.strip() for each in told.split(",")):
        if re.fullmatch(r"\d+", part) and int(part) < len(every):
            found.append(every[int(part)])
        elif part.startswith("GPU-"):
            found += [each for each in every if pynvml.nvmlDeviceGetUUID(each).startswith(part)]
        else:
            break  # as CUDA does: nothing after a wrong one is seen
    return found


def _uses_cuda() -> bool:
    """Whether torch has work on a GPU here; what does not count idles, or works for others."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # None while torch is being imported
    return bool(cuda is not None and cuda.is_initialized())


__all__ = ["POWERCAP", "Counter", "find_apple", "find_nvml", "find_rapl"]
