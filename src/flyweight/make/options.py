"""What `make` is asked for, checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from flyweight.energy.constants import told_country
from flyweight.errors import OptionError
from flyweight.make.budget import Budgets
from flyweight.make.effort import EFFORTS
from flyweight.make.place import usual_place

By = Literal["bytes", "latency", "memory"]


@dataclass(frozen=True)
class Options:
    """The wishes of one job; `bar` is a share of the teacher's score unless `absolute`."""

    teacher: str
    tasks: tuple[Path, ...]
    out: Path
    bar: float
    absolute: bool
    score: str
    by: By
    effort: str
    budgets: Budgets
    device: str  # whose figures count: this, or a profile of another one
    steps: int | None
    seed: int
    country: str | None = None  # whose grid the carbon is of
    threads: int = 0  # fixed when the job first runs

    @property
    def on_device(self) -> bool:
        """Whether the search needs to know what shapes take on the device."""
        return self.by != "bytes" or self.budgets.on_device or self.device != "this"


def check_options(
    teacher: str,
    task: Path | Sequence[Path],
    out: Path | None,
    bar: float,
    bar_absolute: float | None,
    score: str,
    by: str,
    effort: str,
    budgets: Budgets,
    steps: int | None,
    seed: int,
    device: str = "this",
    country: str | None = None,
) -> Options:
    """Options that make sense, or OptionError; FolderError for a usual place that is taken."""
    if not isinstance(task, str | Path) and not task:
        raise OptionError("--task is missing: give a file.")
    absolute = bar_absolute is not None
    value = bar if bar_absolute is None else bar_absolute
    name = "--bar-absolute" if absolute else "--bar"
    if not 0 < value <= 1:
        raise OptionError(f"{name} is {value}: give a number above 0 and at most 1, such as 0.95.")
    if absolute and score == "likelihood":
        raise OptionError("--bar-absolute does not fit likelihood, which has no top. Use --bar.")
    if by not in ("bytes", "latency", "memory"):
        raise OptionError(f"--by is {by!r}: choose bytes, latency or memory.")
    if effort not in EFFORTS:
        raise OptionError(f"--effort is {effort!r}: choose {', '.join(EFFORTS)}.")
    if steps is not None and steps < 1:
        raise OptionError(f"--steps is {steps}: give at least 1.")
    if not 0 <= seed < 2**32:
        raise OptionError(f"--seed is {seed}: give a whole number from 0 on, below 2^32.")
    tasks = tuple(map(Path, [task] if isinstance(task, str | Path) else task))
    return Options(
        teacher=teacher,
        tasks=tasks,
        out=usual_place(teacher, tasks) if out is None else Path(out),
        bar=value,
        absolute=absolute,
        score=score,
        by=cast(By, by),
        effort=effort,
        budgets=budgets,
        device=device,
        steps=steps,
        seed=seed,
        country=told_country(country),
    )
