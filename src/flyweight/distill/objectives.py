"""Every objective by its name: what a student may be trained towards, with all that can be set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flyweight.distill.alignment import Alignment
from flyweight.distill.divergences import Blend
from flyweight.distill.live import LiveDistillation, OnPolicy
from flyweight.distill.losses import Distillation, Objective, cross_entropy
from flyweight.distill.matching import HiddenMatching, even_pairs
from flyweight.errors import OptionError

DIVERGENCES = {"forward-kl": 0.0, "reverse-kl": 1.0, "jsd": 0.5}  # beta, see divergences.py
ANSWERS = "cross-entropy"
LOSSES = (*DIVERGENCES, ANSWERS)
KL = 0.7  # the divergence's share beside cross-entropy


@dataclass(frozen=True)
class Aim:
    """An objective as a user asks for it; OptionError where that is out of range or contradictory.

    `loss` is one of LOSSES; `beta` (of jsd alone), `kl` (0.7 where not given) and `temperature` are
    those of divergences.Blend. `match_hidden` is the weight of hidden-state matching, 0 for none;
    `on_policy` the share of the steps in which the student writes and the teacher judges.
    """

    loss: str = "forward-kl"
    beta: float | None = None
    kl: float | None = None
    temperature: float = 1.0
    match_hidden: float = 0.0
    on_policy: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise OptionError(f"--loss is {self.loss!r}: give one of {', '.join(LOSSES)}.")
        if self.beta is not None and (self.loss != "jsd" or not 0 < self.beta < 1):
            raise OptionError(f"--beta is {self.beta}: give a number between 0 and 1, with jsd.")
        if self.kl is not None and not 0 <= self.kl <= 1:
            raise OptionError(f"--kl is {self.kl}: give a share from 0 to 1.")
        if not 0 < self.temperature < math.inf:
            raise OptionError(f"--temperature is {self.temperature}: give a number above 0.")
        if not 0 <= self.match_hidden < math.inf:
            raise OptionError(f"--match-hidden is {self.match_hidden}: give a weight from 0 on.")
        if not 0 <= self.on_policy <= 1:
            raise OptionError(f"--on-policy is {self.on_policy}: give a share from 0 to 1.")
        self._check_together()

    def _check_together(self) -> None:
        if self.loss == ANSWERS:
            of_a_teacher = {
                "--kl": self.kl is not None,
                "--temperature": self.temperature != 1,
                "--on-policy": self.on_policy > 0,
            }
            for name, given in of_a_teacher.items():
                if given:
                    raise OptionError(
                        f"{name} means nothing to --loss {ANSWERS}, which asks no teacher. "
                        "Leave it out or give another loss."
                    )
        if self.match_hidden > 0 and self.on_policy > 0:
            raise OptionError(
                "--match-hidden and --on-policy: hidden states are matched on given answers. "
                "Give one of them."
            )

    @property
    def blend(self) -> Blend:
        """The divergence and its share."""
        if self.loss == ANSWERS:
            return Blend(0.0)
        beta = DIVERGENCES[self.loss] if self.beta is None else self.beta
        return Blend(KL if self.kl is None else self.kl, beta, self.temperature)

    @property
    def live(self) -> bool:
        """Whether the teacher has to run in each step.

        What it says is recorded at temperature 1 alone: the mass of a record's tail at another one
        is not known.
        """
        return self.match_hidden > 0 or self.on_policy > 0 or self.temperature != 1

    @property
    def recorded(self) -> bool:
        """Whether a record of what the teacher says is all that is needed of it."""
        return not self.live and self.loss != ANSWERS

    @property
    def drawn(self) -> bool:
        """Whether what is drawn from the tail serves: the gradient is linear in p."""
        return self.recorded and self.blend.beta == 0

    def without_teacher(self, alignment: Alignment | None = None) -> Objective:
        """The objective on recorded rows, or on plain ones where no teacher is asked."""
        if self.live:
            raise ValueError(f"{self} needs its teacher in each step")
        if self.loss == ANSWERS:
            return cross_entropy
        return Distillation(self.blend.share, self.blend.beta, alignment)

    def beside(
        self,
        student: Any,
        teacher: Any,
        longest: int,
        alignment: Alignment | None = None,
        to_teacher: Tensor | None = None,
    ) -> Objective:
        """The objective with the teacher in each step; the last two as in LiveDistillation.

        `longest`: how many tokens the student writes at most, where it writes.
        """
        given: Objective = cross_entropy
        if self.loss != ANSWERS:
            judge = LiveDistillation(teacher, self.blend, alignment, to_teacher)
            given = OnPolicy(judge, self.on_policy, longest) if self.on_policy else judge
        if not self.match_hidden:
            return given
        pairs = even_pairs(student, teacher)
        return HiddenMatching(given, student, teacher, pairs, self.match_hidden, to_teacher)


__all__ = ["ANSWERS", "DIVERGENCES", "KL", "LOSSES", "Aim"]
