"""How much a training with corpora reads of each, and in rows of which length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from flyweight.distill.mixing import Source, mixed, one_by_one
from flyweight.distill.order import Batches
from flyweight.distill.packing import packable, size
from flyweight.distill.trainer import Row
from flyweight.errors import OptionError
from flyweight.progress import say

ROW = 512  # tokens of a packed row where nothing else is said; plain attention is fast up to here
LEAST_ROW = 128  # whatever the size of a step: shorter pieces of documents teach little


@dataclass(frozen=True)
class Plan:
    """Rows of `length` tokens, `batch_size` of them in a step, `share` of them from corpora.

    In `written` of the `steps` the student answers `asked` items instead, one a row.
    """

    length: int
    batch_size: int
    steps: int
    share: float
    written: int = 0
    asked: int = 0

    @property
    def packed(self) -> int:
        """The steps on packed rows."""
        return self.steps - self.written

    @property
    def tokens(self) -> int:
        """How many tokens of corpora the training reads."""
        return max(1, round(self.share * self.packed * self.batch_size * self.length))

    def batches(
        self,
        items: Sequence[Row],
        corpora: Sequence[Sequence[Row]],
        models: Sequence[Any],
        seed: int,
    ) -> Batches:
        """What the training reads in each step.

        Documents share rows if all `models` keep them apart. Each corpus has the same share.
        """
        rows, batch_size = self._rows(items, corpora, models, seed)
        packed = Batches.of(rows, self.packed, batch_size, seed)
        if not self.written:
            return packed
        return packed.among(Batches.of(items, self.written, self.asked, seed), seed)

    def _rows(
        self,
        items: Sequence[Row],
        corpora: Sequence[Sequence[Row]],
        models: Sequence[Any],
        seed: int,
    ) -> tuple[list[Row], int]:
        """All packed rows, and how many of them make a step."""
        sources = [Source(items, 1 - self.share)] if items else []
        sources += [Source(rows, self.share / len(corpora)) for rows in corpora]
        if all(packable(model, self.length) for model in models):
            return mixed(sources, self.length, self.packed * self.batch_size, seed), self.batch_size
        say("Each document has a row of its own: the model does not keep documents of a row apart.")
        mean = 1 / sum(each.share / np.mean([*map(size, each.rows)]) for each in sources)
        batch_size = max(1, round(self.batch_size * self.length / mean))
        return one_by_one(sources, self.packed * batch_size, seed), batch_size


def planned(
    items: Sequence[Row],
    *,
    steps: int,
    batch_size: int,
    share: float,
    row_length: int | None,
    context: int,
    on_policy: float = 0.0,
) -> Plan:
    """A step has the tokens of `batch_size` average items, or without items so many rows.

    At least one row, which holds the longest item; where no `row_length` is given, rows are as much
    shorter as the step then needs to have its tokens in whole rows. In a share `on_policy` of the
    steps the student answers `batch_size` items. OptionError for a `row_length` that an item or the
    models' `context` does not fit, and for an `on_policy` that leaves no step of either kind.
    """
    longest = max(map(size, items), default=2)
    if row_length is not None and not longest <= row_length <= context:
        raise OptionError(
            f"--row-length is {row_length}: give a number from {longest} (the longest item) "
            f"to {context} (the context)."
        )
    if not items:
        return Plan(row_length or min(ROW, context), batch_size, steps, 1.0)
    written = _written(on_policy, steps)
    plan = partial(Plan, steps=steps, share=share, written=written, asked=batch_size)
    tokens = batch_size * float(np.mean([*map(size, items)]))
    if row_length is not None:
        return plan(row_length, max(1, round(tokens / row_length)))
    least = max(longest, min(LEAST_ROW, context))
    most = max(least, min(ROW, context, round(tokens)))
    fewest = max(1, int(tokens / most))
    plans = [
        plan(min(most, max(least, round(tokens / count))), count) for count in (fewest, fewest + 1)
    ]
    return min(plans, key=lambda plan: abs(plan.batch_size * plan.length - tokens))


def _written(share: float, steps: int) -> int:
    """In how many of the steps the student writes; OptionError where that is none or all."""
    written = round(share * steps)
    if share and not 0 < written < steps:
        raise OptionError(
            f"--on-policy is {share}: of {steps} steps it takes {written}, --corpus the rest. "
            "Give a share that leaves both some, or more --steps, or leave --corpus out."
        )
    return written


__all__ = ["Plan", "planned"]
