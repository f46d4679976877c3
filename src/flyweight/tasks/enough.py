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
ALONE = 0.9  # of the answers occur once: then they are texts, and no labels
FEW = 8  # items of a label on average, below which intervals of a score by label are far too narrow


def check_evidence(task: Task, bar: float, scorer: Scorer, *, chosen: bool = False) -> list[str]:
    """What stands in the way of a verdict "passes", a line for each split and reason.

    Raises TaskError where dev or test is a single group: then no student can pass. Otherwise the
    lower limit of a student that agrees with the teacher on every item is held against the bar (of
    either kind: full agreement gives the same limit). That is a warning and no proof: items that
    are lost here and there show that they do not fall by whole groups, and a student may be better
    than its teacher. Likelihood is not warned of: its scores differ everywhere and show their
    spread. Labels are looked at (`check_labels`) where all answers are known.
    """
    warnings = []
    for split in ("dev", "test"):
        items = task.splits[split]
        sizes = list(Counter(item.group for item in items).values())
        if len(sizes) < 2:
            raise TaskError(_single(task.name, split, items))
        if all(item.answer is not None for item in items):
            warnings += check_labels(items, f"{task.name}: {split}", scorer, chosen=chosen)
        low = shown_by_agreement(sizes)
        if scorer.needs_generation and low < bar:
            warnings.append(_too_few(task.name, split, sizes, low, bar))
    return warnings


def check_labels(
    items: Sequence[Item], name: str, scorer: Scorer, *, chosen: bool = False
) -> list[str]:
    """A line where a score goes by label and there are too few items of each for its interval.

    All items have answers, and `name` says whose they are. OptionError where nearly every answer
    occurs once, unless they are `chosen` among the labels of an encoder: then they are none.
    """
    if scorer.whole is None:
        return []
    counts = Counter((item.answer or "").strip() for item in items)
    alone = sum(count == 1 for count in counts.values())
    if not chosen and alone > ALONE * len(items):
        raise OptionError(
            f"--score {scorer.name} goes by label, and {name} has {len(items):,} items, of which "
            f"{alone:,} have an answer of their own. Use another score, such as exact, json or f1, "
            "or give more items of each label."
        )
    if len(items) >= FEW * len(counts):
        return []
    warning = (
        f"{name} has {len(items):,} items of {len(counts):,} labels: with fewer than {FEW} of each "
        f"on average the interval of {scorer.name} is too narrow. Give more items of each label, "
        "or use another score."
    )
    return [warning]


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
