"""Whether a task holds enough groups for a verdict, known before anything heavy runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np

from flyweight.errors import OptionError, TaskError
from flyweight.tasks.items import Item, Task
from flyweight.tasks.score import Scorer
from flyweight.tasks.statistics import paired_ratio

MOST_GROUPS = 20_000  # nobody collects more; a bar of 1 is not reached by any number


def check_evidence(task: Task, bar: float, scorer: Scorer) -> list[str]:
    """What stands in the way of a verdict "passes", one line for each split that is too small.

    Raises TaskError where dev or test is a single group: then no student can pass, and OptionError
    as `check_labels` does. Otherwise the
    lower limit of a student that agrees with the teacher on every item is held against the bar (of
    either kind: full agreement gives the same limit). That is a warning and no proof: items that
    are lost here and there show that they do not fall by whole groups, and a student may be better
    than its teacher. Likelihood is not warned of: its scores differ everywhere and show their
    spread.
    """
    warnings = []
    for split in ("dev", "test"):
        items = task.splits[split]
        sizes = list(Counter(item.group for item in items).values())
        if len(sizes) < 2:
            raise TaskError(_single(task.name, split, items))
        check_labels(items, f"{task.name}: {split}", scorer)
        low = shown_by_agreement(sizes)
        if scorer.needs_generation and low < bar:
            warnings.append(_too_few(task.name, split, sizes, low, bar))
    return warnings


def check_labels(items: Sequence[Item], name: str, scorer: Scorer) -> None:
    """OptionError where a score goes by label and most of the answers are none: each is another.

    Labels that occur once show no spread, so that the interval of such a score would be a point.
    `name` says whose items they are. Those without an answer are passed over.
    """
    answers = [item.answer.strip() for item in items if item.answer is not None]
    different = len(set(answers))
    if scorer.whole is not None and 2 * different > len(answers):
        raise OptionError(
            f"--score {scorer.name} goes by label, and {name} has {different:,} different answers "
            f"in {len(answers):,} items. Use another score, such as exact, json or f1, or give "
            "more items of each label."
        )


def shown_by_agreement(sizes: Sequence[int], confidence: float = 0.95) -> float:
    """The lower limit where student and teacher agree on all items of groups of these sizes."""
    right = np.ones(sum(sizes))
    codes = np.repeat(np.arange(len(sizes)), sizes).tolist()
    return paired_ratio(right, right, codes, confidence).low


def groups_needed(sizes: Sequence[int], bar: float, confidence: float = 0.95) -> int | None:
    """With how many groups like these full agreement just shows `bar`: one fewer does not.

    The sizes are taken in turn. None where MOST_GROUPS would not be enough.
    """

    def enough(groups: int) -> bool:
        return shown_by_agreement(list(islice(cycle(sizes), groups)), confidence) >= bar

    few, many = 1, 2  # one group shows nothing
    while not enough(many):
        few, many = many, many * 2
        if few >= MOST_GROUPS:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def _single(name: str, split: str, items: Sequence[Item]) -> str:
    return (
        f"{name}: all {split} items ({len(items)}) are of a single group, and one group cannot "
        f"show how groups differ: no student could pass. Add items of other groups to {split}."
    )


def _too_few(name: str, split: str, sizes: Sequence[int], low: float, bar: float) -> str:
    needed = groups_needed(sizes, bar)
    takes = f"takes at least {needed:,}" if needed else "takes more than anybody collects"
    return (
        f"{name}: {split} has {len(sizes):,} groups, and a student that agrees with the teacher on "
        f"all of them shows only that it is at {_percent(low)} % or above. To show the bar of "
        f"{bar * 100:g} % {takes}."
    )


def _percent(share: float) -> str:
    return f"{np.floor(share * 1000) / 10:g}"  # rounded down: it must not read as the bar
