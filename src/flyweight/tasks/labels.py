"""Items whose answer is one of a model's labels: token ids of the text, and the label's number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyweight.errors import TaskError
from flyweight.tasks.encode import prompt_ids
from flyweight.tasks.items import Item

SHOWN = 3  # labels in a message


@dataclass(frozen=True)
class Labelled:
    """One tokenised text, `ids` int32 [T], and the number of its label, None where none is given.

    Ids are the tokenizer's for the text as it stands, special tokens included.
    """

    ids: np.ndarray
    label: int | None

    @property
    def prompt(self) -> list[int]:
        return self.ids.tolist()

    @property
    def answer(self) -> list[int]:
        """No tokens: a label is chosen, not written."""
        return []

    def __len__(self) -> int:
        return len(self.ids)


def label_items(
    tokenizer: Any, items: Sequence[Item], name: str, context: int, numbers: Mapping[str, int]
) -> tuple[Labelled, ...]:
    """The items tokenised, their answers as `numbers` (`Checkpoint.labels`) has them.

    Raises TaskError for an answer that is no label, and for a text longer than `context`; `name` is
    the task's, for the message.
    """
    found = []
    for item in items:
        ids = np.array(prompt_ids(tokenizer, item.messages), dtype=np.int32)
        if not len(ids):
            raise TaskError(f"{name}, line {item.line}: the text has no tokens. Remove the item.")
        if len(ids) > context:
            raise TaskError(
                f"{name}, line {item.line}: {len(ids)} tokens do not fit the teacher's context of "
                f"{context}. Shorten or remove the item."
            )
        found.append(Labelled(ids, _number(item, name, numbers)))
    return tuple(found)


def _number(item: Item, name: str, numbers: Mapping[str, int]) -> int | None:
    if item.answer is None:
        return None
    number = numbers.get(item.answer.strip())
    if number is None:
        known = ", ".join(map(repr, sorted(numbers)[:SHOWN]))
        more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
        raise TaskError(
            f"{name}, line {item.line}: the answer {item.answer[:60]!r} is none of the teacher's "
            f"labels ({known}{more}). Correct it, or the teacher's label2id in config.json."
        )
    return number


__all__ = ["Labelled", "label_items"]
