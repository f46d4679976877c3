"""Candidates: a shape, distilled, packed at every bit width, and measured on dev."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from flyweight.anatomy import Shape
from flyweight.card import Role
from flyweight.make.bench import Result
from flyweight.make.budget import Figures
from flyweight.make.curve import Forecast
from flyweight.make.data import Split
from flyweight.make.form import Cost
from flyweight.make.options import By, Options
from flyweight.make.rank import RankedShape
from flyweight.tasks.statistics import Ratio, absolute_limits, paired_ratio


@dataclass(frozen=True)
class Candidate:
    """A file that was measured on dev: a distilled shape at one bit width, or a rival."""

    shape: Shape
    parameters: int
    bits: int
    file: Path
    checkpoint: Path
    dev: Result
    ratio: Ratio  # against the teacher on dev, or the score itself for an absolute bar
    role: Role = "candidate"
    note: str = ""
    forecast: Figures | None = None  # of the device, before it was measured
    elsewhere: bool = False  # the device is another one: its forecast counts

    @property
    def name(self) -> str:
        of = {"quantised teacher": "trimmed" if self.note else "teacher", "from scratch": "scratch"}
        return f"{of.get(self.role, f'{self.parameters / 1e6:.1f}M')} at {self.bits} bits"

    @property
    def bytes(self) -> int:
        return self.file.stat().st_size

    @property
    def figures(self) -> Figures:
        """What it takes on its device."""
        if self.elsewhere and self.forecast is not None:
            return replace(self.forecast, bytes=self.bytes)
        return measured_figures(self.parameters, self.bytes, self.dev.cost)

    def size(self, by: By) -> float:
        """What "smallest" compares: bytes, seconds an answer (p50), or peak memory in bytes."""
        return size_of(self.figures, by)


@dataclass
class Contender:
    """A shape in the search: how far it was trained, and where its curve is heading."""

    ranked: RankedShape
    full_steps: int
    foretold: dict[int, Figures] = field(default_factory=dict)  # by bits, of the device
    step: int = 0
    steps: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    forecast: Forecast | None = None  # None once it is finished: there is nothing to guess
    candidates: list[Candidate] = field(default_factory=list)
    excluded: str = ""  # why it can be no candidate: not exported faithfully, or too big
    hopeless: bool = False

    @property
    def finished(self) -> bool:
        return self.step >= self.full_steps

    @property
    def fate(self) -> Literal["finished", "dropped", "hopeless"]:
        return "finished" if self.finished else "hopeless" if self.hopeless else "dropped"

    @property
    def label(self) -> str:
        return f"{self.ranked.parameters / 1e6:.2f}M"


@dataclass
class Found:
    """What a search has found out."""

    ranking: list[RankedShape]
    contenders: list[Contender]

    @property
    def candidates(self) -> list[Candidate]:
        """Every student that was measured."""
        return [made for contender in self.contenders for made in contender.candidates]


def compare(
    student: np.ndarray, teacher: np.ndarray, split: Split, options: Options, lower_is_better: bool,
    confidence: float = 0.95,
) -> Ratio:  # fmt: skip
    """The student against the teacher, or against 1 for an absolute bar, with one-sided limits.

    Of several tasks that of the one that binds: where one falls short the worst of those, else the
    one with the lowest limit.
    """
    found = ratios(student, teacher, split, options, lower_is_better, confidence)
    short = [each for each in found if each.high < options.bar]
    return min(short, key=lambda each: each.estimate) if short else min(found, key=lambda r: r.low)


def ratios(
    student: np.ndarray, teacher: np.ndarray, split: Split, options: Options, lower_is_better: bool,
    confidence: float = 0.95,
) -> list[Ratio]:  # fmt: skip
    """As `compare`, of every task by itself.

    Each at the whole `confidence`: all have to pass, so that none passes by the luck of another.
    """
    if lower_is_better and not options.absolute:
        student, teacher = teacher, student
    found = []
    for task, places in split.by_task.items():
        groups = [split.groups[place] for place in places]
        if options.absolute:
            ratio = absolute_limits(student[places], groups, confidence)
        else:
            ratio = paired_ratio(student[places], teacher[places], groups, confidence)
        found.append(replace(ratio, binds=task))
    return found


def measured_figures(parameters: int, size: int, cost: Cost) -> Figures:
    """What a file of `size` bytes took here."""
    return Figures(
        parameters=parameters,
        bytes=size,
        memory=cost.peak_memory_bytes,
        latency_p50=cost.latency_p50,
        latency_p95=cost.latency_p95,
        speed=cost.tokens_per_second or 1 / cost.latency_p50,
    )


def size_of(figures: Figures, by: By) -> float:
    """The figure that "smallest" compares."""
    return {
        "bytes": figures.bytes,
        "latency": figures.latency_p50,
        "memory": figures.memory,
    }[by]


def passes(candidate: Candidate, options: Options) -> bool:
    """Whether a candidate's lower limit on dev reaches the bar, within the budgets."""
    fits = not options.budgets.exceeded(candidate.figures)
    return candidate.ratio.low >= options.bar and fits


def of_use(bits: int, measured: Sequence[Candidate], options: Options) -> bool:
    """Whether a width may be the smallest that passes: fewer bits fall short, more would do."""
    more = [each.ratio.low >= options.bar for each in measured if each.bits > bits]
    fewer = any(passes(each, options) for each in measured if each.bits < bits)
    return not fewer and (any(more) or not more)


def choose(candidates: Sequence[Candidate], options: Options) -> Candidate:
    """The smallest that passes on dev; else the one with the highest limit (smallest of equals).

    One of them is within the budgets.
    """
    good = [candidate for candidate in candidates if passes(candidate, options)]
    if good:
        return min(good, key=lambda candidate: candidate.size(options.by))
    return max(
        (each for each in candidates if not options.budgets.exceeded(each.figures)),
        key=lambda made: (made.ratio.low, made.ratio.estimate, -made.size(options.by)),
    )
