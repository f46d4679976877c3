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
        self.before = _read(file)
        self.meter = Meter(find_power(children=True)).start()
        self._written = time.monotonic()
        self._failed = False

    @property
    def now(self) -> Nanojoules:
        """What this process has taken: its work, and the time that the computer was on for it."""
        self.meter.settle()
        ours, idle = self.meter.unattributed, self.meter.idle
        return Nanojoules(ours.counted - self.meter.others, ours.modelled, idle.seconds)

    @property
    def whole(self) -> Nanojoules:
        """That and what earlier processes took."""
        return self.before + self.now

    def moved(self) -> None:
        """Keep the count if that is some time ago."""
        if time.monotonic() - self._written >= STEP:
            self.keep()

    def keep(self) -> None:
        """Write the count."""
        self._written = time.monotonic()
        try:
            with disk_errors(self.file):
                write_whole(self.file, json.dumps(vars(self.whole)))
        except FolderError as error:
            if not self._failed:
                say(f"What this takes in energy is not kept: {error}")
            self._failed = True


def _read(file: Path) -> Nanojoules:
    """What a file says; nothing where there is none, or none that makes sense."""
    try:
        return Nanojoules(
            **{name: int(value) for name, value in json.loads(file.read_text()).items()}
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return Nanojoules()


__all__ = ["KeptMeter"]
