"""What a smaller vocabulary costs on texts that it was not chosen for, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

WORST = 5  # texts, and tokens


@dataclass(frozen=True)
class Grown:
    """A text that takes more tokens than before."""

    text: str
    before: int
    after: int


@dataclass(frozen=True)
class Coverage:
    """How texts are split by the smaller vocabulary, beside the teacher's."""

    texts: int
    same: int  # texts split into the same tokens
    before: int  # tokens of all texts, split by the teacher
    after: int
    unreadable: int  # texts with more unknown tokens than the teacher had
    worst: tuple[Grown, ...]  # those that grow most, relatively
    lost: tuple[tuple[str, int], ...]  # the tokens most often missed, and how often

    @property
    def share(self) -> float:
        """Of texts split into the same tokens; 1 of none."""
        return self.same / self.texts if self.texts else 1.0

    @property
    def growth(self) -> float:
        """Tokens more than before, relatively, over all texts together."""
        return self.after / self.before - 1 if self.before else 0.0

    def __str__(self) -> str:
        said = (
            f"{self.same:,} of {self.texts:,} texts ({self.share:.1%}) are split into the same "
            f"tokens; all together take {self.growth:.1%} more"
        )
        if self.unreadable:
            said += f"; {self.unreadable:,} hold words that cannot be read any more"
        if self.lost:
            said += ". Most missed: " + ", ".join(f"{text!r}" for text, _ in self.lost)
        return said


def coverage(old: Any, new: Any, keep: Tensor, texts: Sequence[str]) -> Coverage:
    """How `new`, which holds the tokens `keep` [V] of `old`, splits texts that it was not made for.

    Both tokenizers are given the texts as they are; a chat is rendered before, without tokenizing.
    """
    ids, kept = keep.tolist(), set(keep.tolist())
    same = before = after = unreadable = 0
    grown: list[Grown] = []
    lost: Counter[int] = Counter()
    for text in texts:
        was: list[int] = old(text, add_special_tokens=False)["input_ids"]
        now = [ids[i] for i in new(text, add_special_tokens=False)["input_ids"]]
        before, after = before + len(was), after + len(now)
        if was == now:
            same += 1
            continue
        lost.update(i for i in was if i not in kept)
        unreadable += now.count(old.unk_token_id) > was.count(old.unk_token_id)
        grown.append(Grown(text, len(was), len(now)))
    grown.sort(key=lambda each: each.before / max(1, each.after))
    missed = tuple((old.decode([i]), count) for i, count in lost.most_common(WORST))
    return Coverage(len(texts), same, before, after, unreadable, tuple(grown[:WORST]), missed)
