"""The task as the pipeline needs it: tokenised, by split, with groups and answers at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyweight.tasks.encode import Example, encode_items, prompt_ids
from flyweight.tasks.items import Item, Task
from flyweight.tasks.score import Scorer

SPARE_TOKENS = 8  # beyond the longest wanted answer, before an answer is cut off
FREE_TOKENS = 256  # where no answer tells how long answers are
PLAIN_TOKENS = 40  # what a latency is measured on, where nothing is answered

Writer = Callable[[list[list[int]], int], list[str]]  # prompts, most tokens -> answers


@dataclass(frozen=True)
class Split:
    """The items of one split beside their token ids; every item has an answer."""

    items: tuple[Item, ...]
    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def prompts(self) -> list[list[int]]:
        return [example.prompt for example in self.examples]

    @property
    def pairs(self) -> list[tuple[list[int], list[int]]]:
        """(prompt ids, answer ids with their end) of every item."""
        return [(example.prompt, example.answer) for example in self.examples]

    @property
    def groups(self) -> list[str]:
        return [item.group for item in self.items]

    @property
    def answers(self) -> list[str]:
        return [item.answer or "" for item in self.items]

    @property
    def answer_bytes(self) -> np.ndarray:
        """int [n]: UTF-8 bytes of what likelihood measures."""
        texts = [item.last_text if item.answer is None else item.answer for item in self.items]
        return np.array([max(1, len(text.encode())) for text in texts])

    @property
    def byte_shares(self) -> np.ndarray:
        """float [n], mean 1: the bytes of each item over those of an average one."""
        return self.answer_bytes / self.answer_bytes.mean()


@dataclass(frozen=True)
class Data:
    """Train, dev and test, tokenised; `max_tokens` is where an answer is cut off."""

    train: Split
    dev: Split
    test: Split
    max_tokens: int

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "dev": self.dev, "test": self.test}


def prepare(task: Task, tokenizer: Any, scorer: Scorer, context: int, write: Writer) -> Data:
    """The task tokenised; `write` is the teacher, asked where an item has no answer.

    Raises TaskError where an item is longer than the teacher's `context`.
    """
    splits = task.splits
    if scorer.needs_generation:
        splits = _answered(tokenizer, splits, context, write)
    made = {
        name: prepare_split(items, task.name, tokenizer, scorer, context)
        for name, items in splits.items()
    }
    return Data(**made, max_tokens=answer_limit(made.values(), scorer))


def prepare_split(
    items: Sequence[Item], name: str, tokenizer: Any, scorer: Scorer, context: int
) -> Split:
    """One split tokenised; every item has its answer, unless likelihood takes it for plain text.

    Raises TaskError where an item is longer than `context`; `name` is the task's.
    """
    plain = not scorer.needs_generation
    return Split(tuple(items), encode_items(tokenizer, items, name, context, plain=plain))


def answer_limit(splits: Iterable[Split], scorer: Scorer) -> int:
    """Where an answer is cut off, in tokens: a little beyond the longest that these splits want."""
    if not scorer.needs_generation:
        return PLAIN_TOKENS
    return SPARE_TOKENS + max(len(answer) for split in splits for _, answer in split.pairs)


def _answered(
    tokenizer: Any, splits: dict[str, tuple[Item, ...]], context: int, write: Writer
) -> dict[str, tuple[Item, ...]]:
    """The splits with the teacher's answers where items have none; it is asked once for all."""
    missing = [item for items in splits.values() for item in items if item.answer is None]
    if not missing:
        return splits
    prompts = [prompt_ids(tokenizer, item.messages) for item in missing]
    room = context - max(map(len, prompts)) - 1  # the end of the turn is a token as well
    written = iter(write(prompts, max(1, min(FREE_TOKENS, room))))
    return {
        name: tuple(
            item.with_answer(next(written)) if item.answer is None else item for item in items
        )
        for name, items in splits.items()
    }
