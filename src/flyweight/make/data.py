"""The task as the pipeline needs it: tokenised, by split, with groups and answers at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyweight.errors import TaskError
from flyweight.tasks.encode import Example, encode, prompt_ids
from flyweight.tasks.items import Item, Task
from flyweight.tasks.score import Scorer

SPARE_TOKENS = 8  # beyond the longest wanted answer, before an answer is cut off
FREE_TOKENS = 256  # where no answer tells how long answers are

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
        texts = [item.answer or item.messages[-1]["content"] for item in self.items]
        return np.array([max(1, len(text.encode())) for text in texts])


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
    splits = {"train": task.train, "dev": task.dev, "test": task.test}
    if not scorer.needs_generation:
        made = {name: _plain_split(tokenizer, items) for name, items in splits.items()}
        longest = SPARE_TOKENS * 4  # what a latency is measured on, where nothing is answered
    else:
        answered = _answered(tokenizer, splits, context, write)
        made = {
            name: Split(items, tuple(_encode(tokenizer, item) for item in items))
            for name, items in answered.items()
        }
        longest = max(len(pair[1]) for split in made.values() for pair in split.pairs)
    for split in made.values():
        _check_length(split, task.name, context)
    return Data(**made, max_tokens=longest + SPARE_TOKENS)


def _encode(tokenizer: Any, item: Item) -> Example:
    return encode(tokenizer, item.messages, item.answer or "")


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


def _plain_split(tokenizer: Any, items: Sequence[Item]) -> Split:
    """For likelihood: an item without an answer is itself the text that is to be predicted."""
    examples = []
    for item in items:
        if item.answer is not None:
            examples.append(_encode(tokenizer, item))
            continue
        ids = tokenizer(item.messages[-1]["content"], add_special_tokens=False)["input_ids"]
        start = tokenizer.bos_token_id
        ids = ids if start is None else [start, *ids]
        examples.append(Example(np.array(ids, dtype=np.int32), 1))
    return Split(tuple(items), tuple(examples))


def _check_length(split: Split, name: str, context: int) -> None:
    for item, example in zip(split.items, split.examples, strict=True):
        if len(example) > context:
            raise TaskError(
                f"{name}, line {item.line}: {len(example)} tokens do not fit the teacher's "
                f"context of {context}. Shorten or remove the item."
            )
