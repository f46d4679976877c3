"""How far a record is from what the teacher said: what its tail hides, and what rounding moves.

As one event the tail hides part of KL: that has a bound. Where some of it is drawn (drawn.py)
nothing is hidden from forward KL: its gradient is right on average, and has a standard error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from flyweight.distill.divergences import Top
from flyweight.distill.drawn import variance
from flyweight.distill.packed import Columns, left_out, rounding


@dataclass
class Reach:
    """Sums over `tokens`: of the tail's mass, of a bound on the nats it hides, of the rounding.

    See packed.py for what they bound. `chance` is of the variance of the gradient where tokens are
    drawn, summed over the vocabulary. `most_*` are of the worst token.
    """

    tokens: int = 0
    tail: float = 0.0
    most_tail: float = 0.0
    hidden: float = 0.0
    most_hidden: float = 0.0
    rounding: float = 0.0
    most_rounding: float = 0.0
    chance: float = 0.0
    most_chance: float = 0.0

    def add(self, top: Top, columns: Columns, vocabulary: int) -> None:
        """Take up n more tokens: what was said, and how it is kept."""
        mass, hidden = left_out(top, vocabulary)
        chance = mass * 0 if top.drawn is None else variance(top.drawn)
        of_each = {"tail": mass, "hidden": hidden, "chance": chance}
        of_each["rounding"] = rounding(top, columns)
        self.tokens += len(mass)
        for name, each in of_each.items():
            setattr(self, name, getattr(self, name) + float(each.sum()))
            setattr(self, f"most_{name}", max(getattr(self, f"most_{name}"), float(each.max())))

    def facts(self) -> dict[str, Any]:
        """The sums as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Sequence[dict[str, Any]]) -> Reach:
        """The sums of several parts together."""
        total = cls()
        for told in facts:
            for name in (each.name for each in fields(cls)):
                mine, theirs = getattr(total, name), told[name]
                setattr(total, name, max(mine, theirs) if "most" in name else mine + theirs)
        return total

    def __str__(self) -> str:
        tail, hidden, rounded = (
            each / self.tokens for each in (self.tail, self.hidden, self.rounding)
        )
        drawn = ""
        if self.chance:
            usual, most = math.sqrt(self.chance / self.tokens), math.sqrt(self.most_chance)
            drawn = (
                " With those drawn of them the gradient of forward KL by a student's logits is "
                f"right on average, its standard error (L2) {usual:.2g} a token, {most:.2g} at "
                "most."
            )
        return (
            f"Others than the top have {tail:.2g} of the mass on average, {self.most_tail:.2g} at "
            f"most; as one they hide at most {hidden:.2g} nats a token of KL from a student that "
            f"is even there.{drawn} Rounding: {rounded:.1g} nats, {self.most_rounding:.1g} at most."
        )


__all__ = ["Reach"]
