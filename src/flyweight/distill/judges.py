"""What a student is held against: the right answers, a teacher's record, or a live teacher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flyweight.distill.alignment import Alignment, Columns, select
from flyweight.distill.divergences import Blend, Top, against_logits_, against_top_, cross_entropy_
from flyweight.distill.head import Head


class Judge(ABC):
    """What is held against the student's logits, position by position."""

    alignment: Alignment | None = None  # where the teacher's head has other rows

    @property
    def columns(self) -> Columns | None:
        """Which of the student's columns are judged; None: all. The others are impossible."""
        return None if self.alignment is None else self.alignment.student

    def width(self) -> int:
        """How many logits a position it holds itself."""
        return 0

    def hear(self, rows: slice, dtype: torch.dtype) -> None:  # noqa: B027
        """Get ready for these positions, with logits of this type; most need nothing."""

    @abstractmethod
    def judge_(self, student: Tensor, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Values [n] and `weights` x gradient [n, V]; `student` logits [n, V] are overwritten."""


@dataclass
class Answers(Judge):
    """Cross-entropy of the right tokens `targets` int64 [N]."""

    targets: Tensor

    def judge_(self, student: Tensor, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        return cross_entropy_(student, self.targets[rows], weights)


@dataclass
class Recorded(Judge):
    """A blend against what a teacher said before: its top k [N, k], of its own token ids."""

    blend: Blend
    top: Top
    targets: Tensor
    alignment: Alignment | None = None

    def judge_(self, student: Tensor, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        top, targets = self.top[rows], self.targets[rows]
        if self.alignment is not None:
            top, targets = self.alignment.top(top), self.alignment.targets(targets)
        return against_top_(self.blend, student, top, targets, weights)


@dataclass
class Live(Judge):
    """A blend against a teacher's own hidden states [N, D] and head."""

    blend: Blend
    hidden: Tensor
    head: Head
    targets: Tensor
    alignment: Alignment | None = None
    _logits: Tensor | None = field(default=None, init=False)
    _spare: Tensor | None = field(default=None, init=False)
    _start: int = field(default=0, init=False)

    def width(self) -> int:
        return self.head.weight.shape[0]

    def hear(self, rows: slice, dtype: torch.dtype) -> None:
        """Compute the teacher's logits of the chunk."""
        said = self.hidden[rows].to(dtype)
        if self._logits is None or len(self._logits) < len(said):
            self.head = self.head.to(dtype)
            self._logits = said.new_empty(len(said), self.width())
        self.head.logits(said, self._logits[: len(said)])
        self._start = rows.start

    def judge_(self, student: Tensor, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The blend's values and gradient, as `Judge.judge_`."""
        if self._spare is None or len(self._spare[0]) < len(student):
            self._spare = student.new_empty(3, *student.shape)
        teacher, *spare = (each[: len(student)] for each in self._spare)
        log_mass, targets = self._compared(rows, teacher), self.targets[rows]
        if self.alignment is not None:
            targets = self.alignment.targets(targets)
        return against_logits_(
            self.blend, student, teacher, targets, weights, (spare[0], spare[1]), log_mass
        )

    def _compared(self, rows: slice, out: Tensor) -> Tensor | None:
        """The teacher's logits of what is compared, to `out`; its log mass if that is not all."""
        assert self._logits is not None
        logits = self._logits[rows.start - self._start : rows.stop - self._start]
        if self.head.scaling is not None:
            logits = self.head.scaling(logits.to(out.dtype))
        if self.alignment is None:
            out.copy_(logits)
            return None
        out.copy_(select(logits, self.alignment.teacher))
        if not self.alignment.cut:
            return None
        heat = self.blend.temperature
        every = logits[:, : self.alignment.tokens].to(out.dtype) / heat
        kept = torch.div(out, heat) if heat != 1 else out
        return kept.logsumexp(-1, keepdim=True) - every.logsumexp(-1, keepdim=True)


__all__ = ["Answers", "Judge", "Live", "Recorded"]
