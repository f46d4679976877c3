"""How fast a machine does each kind of stage: learned from the jobs that it has run.

A stage takes `a` seconds for each unit (a step, an item, a shape) and `b` for each floating-point
operation. Both start as an assumption and bend towards what past jobs took. The records lie in the
user's state folder (FLYWEIGHT_STATE overrides), one file a machine; a copied file is a named
machine elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import platformdirs
from scipy.optimize import nnls

from flyweight.errors import OptionError
from flyweight.folder import disk_errors

KEPT = 24  # records of each kind
PRIOR = 0.2  # how much the assumption weighs beside one record
# Assumed of two cores of a server: seconds a unit, seconds a floating-point operation.
ASSUMED = {
    "teacher": (1.0, 1.5e-8),
    "answers": (0.01, 2e-11),
    "measure": (0.008, 2e-11),
    "score": (0.002, 6e-12),
    "record": (0.001, 6e-12),
    "rank": (0.2, 6e-12),
    "distil": (0.05, 8e-12),
    "scratch": (0.05, 8e-12),
    "pack": (3.0, 1.5e-8),
    "rival": (3.0, 1.5e-8),
    "check": (0.002, 6e-12),
    "test": (0.008, 2e-11),
}
SIZES = ("memory", "disk")  # foretold in bytes, and so recorded: bytes for seconds
TRAINING = ("distil", "scratch")  # what an accelerator does; the rest is the processor's
# Elsewhere, roughly: how many times as fast as those two cores the processor is, and how many
# times as fast as that processor an accelerator trains (by peak bf16 throughput).
NAMED = {"laptop": (3.0, 1.0), "a100-80": (4.0, 100.0), "h100": (4.0, 220.0)}


@dataclass(frozen=True)
class Work:
    """What a stage has to do: `units` of its own and `flops` floating-point operations."""

    kind: str
    units: float
    flops: float


@dataclass
class Machine:
    """A machine's name, and for each kind of stage what past ones were and took."""

    name: str
    jobs: int = 0
    speed: float = 1.0  # beside the assumption, where nothing is recorded
    accelerator: float = 1.0  # how much faster operations of training are than that
    records: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)

    def seconds(self, work: Work) -> float:
        """How long this stage is likely to take here."""
        a, b = self.rate(work.kind)
        return a * work.units + b * work.flops

    def rate(self, kind: str) -> tuple[float, float]:
        """(seconds a unit, seconds an operation): the assumption, bent by the records."""
        a, b = (each / self.speed for each in ASSUMED[kind])
        if kind in TRAINING:
            b /= self.accelerator
        records = [each for each in self.records.get(kind, []) if each[2] > 0]
        if not records:
            return a, b
        units, flops, seconds = np.array(records, dtype=float).T
        # relative errors; the newest count most
        weights = 0.8 ** np.arange(len(records) - 1, -1, -1.0)
        rows = np.stack([units * a, flops * b], axis=1) / seconds[:, None] * weights[:, None]
        pull = PRIOR * self._pull(rows, weights)
        design = np.vstack([rows, np.eye(2) * PRIOR])
        factors, _ = nnls(design, np.concatenate([weights, [pull, pull]]))
        return a * float(factors[0]), b * float(factors[1])

    @staticmethod
    def _pull(rows: np.ndarray, weights: np.ndarray) -> float:
        """The common factor by which the assumption is off: what both rates are pulled towards."""
        told = rows.sum(axis=1)
        return float((told * weights).sum() / (told**2).sum())

    def factor(self, kind: str) -> float:
        """What past jobs took of memory or disk, for each byte that was foretold; 1 without any."""
        records = [each for each in self.records.get(kind, []) if each[0] > 0 and each[2] > 0]
        if not records:
            return 1.0
        logs = [math.log(taken / foretold) for foretold, _, taken in records[-5:]]
        return math.exp(sum(logs) / len(logs))

    def learn(self, done: Sequence[tuple[Work, float]]) -> None:
        """Take up what the stages of one more job were and took, summed by kind."""
        total: dict[str, list[float]] = {}
        for work, seconds in done:
            sums = total.setdefault(work.kind, [0.0, 0.0, 0.0])
            for place, value in enumerate((work.units, work.flops, seconds)):
                sums[place] += value
        for kind, sums in total.items():
            kept = [*self.records.get(kind, []), (sums[0], sums[1], sums[2])]
            self.records[kind] = kept[-KEPT:]
        self.jobs += bool(total)


def this_machine() -> Machine:
    """This machine with its records, or without any on a first run."""
    path = _file(_own_name())
    return _read(path, _own_name()) if path.exists() else Machine(_own_name(), speed=_cores() / 2)


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
        f"{_file(_own_name()).parent} of another machine."
    )


def remember(done: Sequence[tuple[Work, float]]) -> None:
    """Add a job's stages to this machine's records; nothing done, nothing written."""
    if not done:
        return
    machine = this_machine()
    machine.learn(done)
    path = _file(machine.name)
    told = {"jobs": machine.jobs, "speed": machine.speed, "records": machine.records}
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(told), encoding="utf-8")
        scratch.replace(path)


def _read(path: Path, name: str) -> Machine:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        records = {
            str(kind): [(float(a), float(b), float(c)) for a, b, c in each]
            for kind, each in told["records"].items()
            if kind in ASSUMED or kind in SIZES
        }
        speed = float(told["speed"])
        if not (speed > 0 and math.isfinite(speed)):
            raise ValueError(speed)
        return Machine(name, int(told["jobs"]), speed, records=records)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"{path}: not a machine's records ({error}). Remove it.") from error


def _file(name: str) -> Path:
    root = os.environ.get("FLYWEIGHT_STATE") or platformdirs.user_state_dir("flyweight")
    return Path(root) / "machines" / f"{name}.json"


def _own_name() -> str:
    from flyweight.make.device import processor

    return re.sub(r"[^a-z0-9]+", "-", f"{processor()} x{_cores()}".lower()).strip("-")[:80]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


__all__ = ["ASSUMED", "NAMED", "Machine", "Work", "find_machine", "remember", "this_machine"]
