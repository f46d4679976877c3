"""What a written item must be to be kept: whole, new, not of dev or test, and surely answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from flyweight.tasks.items import Item
from flyweight.tasks.leaks import Nearest, asked, normal, telling

UNSURE = 0.05  # of the real prompts' answers are less sure than what is kept
WRONG = 5  # dev answers that must be wrong before they tell how sure is sure enough

# in the order in which they are looked for
REASONS = {
    "empty": "the prompt is empty",
    "not ended": "the prompt did not end",
    "leak": "a dev or test item, or nearly one",
    "copy": "one of the task's own train items",
    "too long": "prompt and answer do not fit",
    "no answer": "the answer is empty or did not end",
    "repeated": "written before, or nearly so with the same answer",
    "unsure": "the teacher is not sure of its answer",
}


@dataclass(frozen=True)
class Written:
    """One try: the item as far as it came, why it is dropped ("" for kept), and how sure it is.

    `sure` is the mean log-probability of the answer's tokens, its end included.
    """

    item: Item
    reason: str = ""
    sure: float = 0.0


@dataclass
class Sieve:
    """Drops what is of no use; what it keeps is remembered, so that nothing is kept twice."""

    train: Sequence[Item]
    held_out: Sequence[Item]
    least: float  # how sure an answer must be
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Item] = field(default_factory=dict)
    kept: list[Item] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._held_out = {asked(item) for item in self.held_out}
        self._train = {asked(item) for item in self.train}
        self._near = Nearest(map(telling, self.held_out))
        self._before: set[str] = set()
        self._answered = [item for item in self.train if item.answer is not None]
        self._known = Nearest(map(telling, self._answered))

    def look(self, item: Item) -> str:
        """Why a prompt is of no use, whatever was kept before; "" where it is."""
        text = asked(item)
        if not normal(item.last_text):
            return "empty"
        if text in self._held_out or self._near.find(telling(item)) is not None:
            return "leak"
        return "copy" if text in self._train else ""

    def take(self, written: Written) -> bool:
        """Keep a try, or count why not."""
        reason = written.reason or self._judge(written)
        if reason:
            self.dropped[reason] += 1
            self.examples.setdefault(reason, written.item)
            return False
        self._before.add(asked(written.item))
        self._known.add(telling(written.item))
        self._answered.append(written.item)
        self.kept.append(written.item)
        return True

    def _judge(self, written: Written) -> str:
        item = written.item
        if written.sure < self.least:
            return "unsure"
        if asked(item) in self._before:
            return "repeated"
        found = self._known.find(telling(item))
        # "pump 3 leaks" and "pump 4 leaks" are two lessons where the answer names the pump
        if found and normal(self._answered[found[0]].answer or "") == normal(item.answer or ""):
            return "repeated"
        return ""


def sure_enough(sure: Sequence[float], right: Sequence[bool | None]) -> tuple[float, str]:
    """How sure an answer must be, and how that was found.

    `sure` of the teacher's answers to real prompts, and whether they are `right` (None: unknown).
    Where enough are wrong: what tells right from wrong best (the share of right answers above it
    plus that of wrong ones below is greatest: Youden's J); else the quantile UNSURE of all.
    """
    values = np.asarray(sure)
    good = np.array([s for s, r in zip(sure, right, strict=True) if r is True])
    bad = np.array([s for s, r in zip(sure, right, strict=True) if r is False])
    if len(bad) < WRONG or len(good) < WRONG:
        return float(np.quantile(values, UNSURE, method="lower")), (
            f"{1 - UNSURE:.0%} of {len(values)} answers to the task's own prompts are as sure"
        )
    places = np.unique(np.concatenate([good, bad]))
    gains = [(good >= place).mean() + (bad < place).mean() for place in places]
    best = float(places[int(np.argmax(gains))])
    return best, (
        f"above it are {(good >= best).mean():.0%} of {len(good)} right answers and "
        f"{(bad >= best).mean():.0%} of {len(bad)} wrong ones to the task's own prompts"
    )
