"""How much a training with corpora reads of each, and in rows of which length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyweight.distill.mixing import Source, mixed, one_by_one
from flyweight.distill.packing import packable, size
from flyweight.distill.trainer import Row
from flyweight.errors import OptionError
from flyweight.progress import say

ROW = 512  # tokens of a packed row where nothing else is said; plain attention is fast up to here
LEAST_ROW = 128  # whatever the size of a step: shorter pieces of documents teach little


@dataclass(frozen=True)
class Plan:
    """Rows of `length` tokens, `batch_size` of them in a step, `share` of them from corpora."""

    length: int
    batch_size: int
    steps: int
    share: float

    @property
    def tokens(self) -> int:
        """How many tokens of corpora the training reads."""
        return max(1, round(self.share * self.steps * self.batch_size * self.length))

    def rows(
        self,
        items: Sequence[Row],
        corpora: Sequence[Sequence[Row]],
        models: Sequence[Any],
        seed: int,
    ) -> tuple[list[Row], int]:
        """The training's rows in all, and how many of them make a step.

        Documents share rows if all `models` keep them apart. Each corpus has the same share.
        """
        sources = [Source(items, 1 - self.share)] if items else []
        sources += [Source(rows, self.share / len(corpora)) for rows in corpora]
        if all(packable(model, self.length) for model in models):
            return mixed(sources, self.length, self.steps * self.batch_size, seed), self.batch_size
        say("Each document has a row of its own: the model does not keep documents of a row apart.")
        mean = 1 / sum(each.share / np.mean([*map(size, each.rows)]) for each in sources)
        batch_size = max(1, round(self.batch_size * self.length / mean))
        return one_by_one(sources, self.steps * batch_size, seed), batch_size


def planned(
    items: Sequence[Row],
    *,
    steps: int,
    batch_size: int,
    share: float,
    row_length: int | None,
    context: int,
) -> Plan:
    """A step has the tokens of `batch_size` average items, or without items so many rows.

    At least one row, which holds the longest item; where no `row_length` is given, rows are as much
    shorter as the step then needs to have its tokens in whole rows. OptionError for a `row_length`
    that an item or the models' `context` does not fit.
    """
    longest = max(map(size, items), default=2)
    if row_length is not None and not longest <= row_length <= context:
        raise OptionError(
            f"--row-length is {row_length}: give a number from {longest} (the longest item) "
            f"to {context} (the context)."
        )
    if not items:
        return Plan(row_length or min(ROW, context), batch_size, steps, 1.0)
    tokens = batch_size * float(np.mean([*map(size, items)]))
    if row_length is not None:
        return Plan(row_length, max(1, round(tokens / row_length)), steps, share)
    least = max(longest, min(LEAST_ROW, context))
    most = max(least, min(ROW, context, round(tokens)))
    fewest = max(1, int(tokens / most))
    plans = [
        Plan(min(most, max(least, round(tokens / count))), count, steps, share)
        for count in (fewest, fewest + 1)
    ]
    return min(plans, key=lambda plan: abs(plan.batch_size * plan.length - tokens))


__all__ = ["Plan", "planned"]
