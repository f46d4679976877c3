"""Candidates: a shape, distilled, packed at every bit width, and measured on dev."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flyweight.anatomy import Shape
from flyweight.make.bench import Bench, Result
from flyweight.make.data import Data, Split
from flyweight.make.options import By, Options
from flyweight.make.rank import RankedShape
from flyweight.runtime.parity import ParityReport
from flyweight.tasks.statistics import Ratio, absolute_limits, paired_ratio

EPOCHS = 10
BATCH = 32
LEARNING_RATE = 2e-3
KL = 0.7


def default_steps(rows: int) -> int:
    """Enough to see every row EPOCHS times, between 100 and 3,000."""
    return min(3000, max(100, math.ceil(rows * EPOCHS / BATCH)))


@dataclass(frozen=True)
class Candidate:
    """A distilled shape at one bit width, measured on dev."""

    shape: Shape
    parameters: int
    bits: int
    gguf: Path
    checkpoint: Path
    dev: Result
    ratio: Ratio  # against the teacher on dev, or the score itself for an absolute bar

    @property
    def name(self) -> str:
        return f"{self.parameters / 1e6:.1f}M at {self.bits} bits"

    @property
    def bytes(self) -> int:
        return self.gguf.stat().st_size

    def size(self, by: By) -> float:
        """What "smallest" compares: bytes, seconds an answer (p50), or peak memory in bytes."""
        if by == "bytes":
            return self.bytes
        cost = self.dev.cost
        return cost.latency_p50 if by == "latency" else cost.peak_memory_bytes


@dataclass
class Found:
    """What the job has found out; everything that the card will say comes from here."""

    data: Data
    bench: Bench
    teacher_gguf: Path
    teacher_dev: Result
    ranking: list[RankedShape] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    parity: dict[Path, ParityReport] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    tokens: int = 0
    steps: int = 0


def compare(
    student: np.ndarray, teacher: np.ndarray, split: Split, options: Options, lower_is_better: bool,
    confidence: float = 0.95,
) -> Ratio:  # fmt: skip
    """The student against the teacher, or against 1 for an absolute bar, with one-sided limits."""
    if options.absolute:
        return absolute_limits(student, split.groups, confidence)
    if lower_is_better:
        student, teacher = teacher, student
    return paired_ratio(student, teacher, split.groups, confidence)


def choose(candidates: Sequence[Candidate], options: Options) -> Candidate:
    """The smallest whose lower limit on dev reaches the bar; else the one with the highest."""
    good = [candidate for candidate in candidates if candidate.ratio.low >= options.bar]
    if good:
        return min(good, key=lambda candidate: candidate.size(options.by))
    return max(candidates, key=lambda made: (made.ratio.low, made.ratio.estimate))
