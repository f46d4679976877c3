"""What is known of a machine: what past stages took, and how jobs went.

The records lie in the user's state folder (FLYWEIGHT_STATE overrides), one file a machine; a copied
file is a named machine elsewhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import OptionError
from flyweight.folder import disk_errors, state_folder, write_whole
from flyweight.make.course import PastCourse
from flyweight.make.rates import ASSUMED, Rates, Record, Work
from flyweight.runtime.hardware import own_name, processor
from flyweight.runtime.threads import cores

FORMAT = 4  # of the file; what was written in another way is left out
KEPT = 60  # stages of each kind
JOBS_KEPT = 24
# foretold of whole jobs, and so recorded: bytes, joules, or the sum of the stages' seconds
SIZES = ("memory", "disk", "energy", "time")
# Elsewhere, roughly: how many times as fast as the core of ASSUMED the processor is, and how many
# times as fast as that processor an accelerator trains (by peak bf16 throughput).
NAMED = {"laptop": (5.0, 1.0), "a100-80": (6.5, 100.0), "h100": (6.5, 220.0)}


@dataclass
class Machine:
    """A machine's name, and for each kind of stage what past ones were and took."""

    name: str
    jobs: int = 0
    speed: float = 1.0  # beside the assumption, where nothing is recorded
    accelerator: float = 1.0  # how much faster operations of training are than that
    records: dict[str, list[Record]] = field(default_factory=dict)
    courses: list[PastCourse] = field(default_factory=list)

    def rates(self) -> Rates:
        """How long stages take here."""
        return Rates(self.records, self.speed, self.accelerator)

    def factor(self, kind: str) -> float:
        """What past jobs took of one of SIZES for what was foretold of it; 1 without any."""
        records = [each for each in self.records.get(kind, []) if each[0] > 0 and each[2] > 0]
        logs = [math.log(taken / foretold) for foretold, _, taken in records[-5:]]
        return math.exp(float(np.median(logs))) if logs else 1.0

    def learn(self, done: Sequence[tuple[Work, float]], course: PastCourse | None = None) -> None:
        """Take up what the stages of one more job took, and how the whole of it went, if known."""
        for work, seconds in done:
            kept = [*self.records.get(work.kind, []), (work.tokens, work.flops, seconds)]
            self.records[work.kind] = kept[-KEPT:]
        if course is not None:
            self.jobs += 1
            self.courses = [*self.courses, course][-JOBS_KEPT:]


def this_machine() -> Machine:
    """This machine with its records, or without any on a first run."""
    path = _file(own_name())
    return _read(path, own_name()) if path.exists() else Machine(own_name(), speed=_speed())


def find_machine(name: str) -> Machine:
    """The machine of `--machine`: this, one of NAMED, or a file of records from elsewhere."""
    if name == "this":
        return this_machine()
    if name in NAMED:
        speed, accelerator = NAMED[name]
        return Machine(name, speed=speed, accelerator=accelerator)
    path = Path(name)
    if path.is_file():
        return _read(path, path.stem)
    raise OptionError(
        f"--machine {name}: no such machine. Give this, {', '.join(NAMED)}, or a file copied from "
        f"{_file(own_name()).parent} of another machine."
    )


def remember(done: Sequence[tuple[Work, float]], course: PastCourse | None = None) -> None:
    """Add a job to this machine's records (see `Machine.learn`); nothing done, nothing written."""
    if not done:
        return
    machine = this_machine()
    machine.learn(done, course)
    path = _file(machine.name)
    told = {
        "format": FORMAT,
        "jobs": machine.jobs,
        "speed": machine.speed,
        "records": machine.records,
        "courses": [asdict(each) for each in machine.courses],
    }
    with disk_errors(path):
        write_whole(path, json.dumps(told))


def _read(path: Path, name: str) -> Machine:
    """A file of records; of another format, a machine of which only the name is known."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told.get("format", 1) != FORMAT:
            return Machine(name, speed=_speed())
        speed = float(told["speed"])
        if not (speed > 0 and math.isfinite(speed)):
            raise ValueError(speed)
        return Machine(
            name,
            int(told["jobs"]),
            speed,
            records=_records(told["records"]),
            courses=[PastCourse.from_dict(each) for each in told["courses"]],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"{path}: not a machine's records ({error}). Remove it.") from error


def _records(told: dict[str, Any]) -> dict[str, list[Record]]:
    """The records of the kinds that there are."""
    return {
        kind: [(float(tokens), float(flops), float(taken)) for tokens, flops, taken in each]
        for kind, each in told.items()
        if kind in ASSUMED or kind in SIZES
    }


def _file(name: str) -> Path:
    return state_folder() / "machines" / f"{name}.json"


def _speed() -> float:
    """Assumed of these cores beside one: networks this small gain less than a core for each."""
    return cores() ** 0.7


__all__ = ["NAMED", "SIZES", "Machine", "find_machine", "own_name", "processor", "remember",
           "this_machine"]  # fmt: skip
