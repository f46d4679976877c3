"""A meter of work that goes on over many processes: what earlier ones took is kept in a file."""

from __future__ import annotations

import json
import time
from pathlib import Path

from flyweight.energy.meter import Meter, Nanojoules
from flyweight.energy.power import find_power
from flyweight.errors import FolderError
from flyweight.folder import disk_errors, write_whole
from flyweight.progress import say

STEP = 5.0  # seconds between writings: what a kill may lose


class KeptMeter:
    """What this process and its children take, added to what stands in `file`.

    A file that cannot be written is said once; the work goes on, and so does the count of this
    process.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.before, self._entered, bounds = _read(file)
        power = find_power(children=True)
        power.bounds = bounds  # how sure the counted part is that earlier processes took
        self.meter = Meter(power).start()
        self._written = time.monotonic()
        self._failed = False

    @property
    def now(self) -> Nanojoules:
        """What this process has taken: its work, and the time that the computer was on for it."""
        self.meter.settle()
        return self.meter.rest

    @property
    def whole(self) -> Nanojoules:
        """That and what earlier processes took."""
        return self.before + self.now

    @property
    def unentered(self) -> Nanojoules:
        """What no ledger knows of yet, also of a process that was killed."""
        return self.whole - self._entered

    def enter(self, taken: Nanojoules) -> None:
        """So much more stands in the ledger."""
        self._entered = self._entered + taken
        self.keep()

    def moved(self) -> None:
        """Keep the count if that is some time ago."""
        if time.monotonic() - self._written >= STEP:
            self.keep()

    def keep(self) -> None:
        """Write the count."""
        self._written = time.monotonic()
        try:
            with disk_errors(self.file):
                told = {
                    "taken": vars(self.whole),
                    "entered": vars(self._entered),
                    "bounds": self.meter.power.bounds,
                }
                write_whole(self.file, json.dumps(told))
        except FolderError as error:
            if not self._failed:
                say(f"What this takes in energy is not kept: {error}")
            self._failed = True


def _read(file: Path) -> tuple[Nanojoules, Nanojoules, list[float]]:
    """What was taken and entered, and the bounds; nothing where a file makes no sense."""
    try:
        told = json.loads(file.read_text())
        taken, entered = (
            Nanojoules(**{name: int(value) for name, value in told[part].items()})
            for part in ("taken", "entered")
        )
        least, likely, most = map(float, told["bounds"])
        return taken, entered, [least, likely, most]
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return Nanojoules(), Nanojoules(), [0.0, 0.0, 0.0]


__all__ = ["KeptMeter"]
