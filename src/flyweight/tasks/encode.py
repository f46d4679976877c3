"""From messages to token ids: the one place that knows prompts from answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import TemplateError

from flyweight.errors import TaskError
from flyweight.tasks.items import Item

Message = dict[str, Any]
# how a chat template refuses messages, or trips over a field that it takes for granted
REFUSALS = (TemplateError, TypeError, ValueError, KeyError, AttributeError)


@dataclass(frozen=True)
class Example:
    """One tokenised item: `ids` int32 [T]; those from `prompt_length` on are the answer."""

    ids: np.ndarray
    prompt_length: int

    @property
    def prompt(self) -> list[int]:
        return self.ids[: self.prompt_length].tolist()

    @property
    def answer(self) -> list[int]:
        return self.ids[self.prompt_length :].tolist()

    def __len__(self) -> int:
        return len(self.ids)


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The ids that a model is given before it answers: chat template, or plain text without one."""
    if tokenizer.chat_template:
        try:
            return tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
            )
        except REFUSALS as error:
            said = str(messages[-1]["content"])[:60]
            raise TaskError(
                f"the teacher's chat template refuses the messages that end in {said!r} ({error}). "
                "Change their roles, order or fields."
            ) from error
    return tokenizer("".join(message["content"] for message in messages))["input_ids"]


def answer_ids(tokenizer: Any, answer: str) -> list[int]:
    """The ids that a perfect model writes: the answer, then the end of the turn."""
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return ids if tokenizer.eos_token_id is None else [*ids, tokenizer.eos_token_id]


def encode(tokenizer: Any, messages: Sequence[Message], answer: str) -> Example:
    """Prompt and answer as one sequence, in the form in which the model will meet them."""
    return _answered(prompt_ids(tokenizer, messages), answer_ids(tokenizer, answer))


def _answered(prompt: list[int], answer: list[int]) -> Example:
    return Example(np.array([*prompt, *answer], dtype=np.int32), len(prompt))


def encode_text(tokenizer: Any, text: str) -> Example:
    """Plain text that is itself to be predicted, after the start token where there is one."""
    ids, start = tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.bos_token_id
    return Example(np.array(ids if start is None else [start, *ids], dtype=np.int32), 1)


def encode_items(
    tokenizer: Any,
    items: Sequence[Item],
    name: str,
    context: int,
    *,
    plain: bool = False,
    prompt: Callable[[Item], list[int]] | None = None,
) -> tuple[Example, ...]:
    """The items tokenised; TaskError where one is longer than the model's `context`.

    An item without an answer counts as answered with nothing; if `plain`, it is itself the text
    that is to be predicted. `name` is the task's, for the message; `prompt` what a model is given
    of an item, `prompt_ids` of its messages if None.
    """
    examples = []
    for item in items:
        if plain and item.answer is None:
            example = encode_text(tokenizer, item.messages[-1]["content"])
        else:
            given = prompt(item) if prompt else prompt_ids(tokenizer, item.messages)
            example = _answered(given, answer_ids(tokenizer, item.answer or ""))
        if len(example) > context:
            raise TaskError(
                f"{name}, line {item.line}: {len(example)} tokens do not fit the teacher's "
                f"context of {context}. Shorten or remove the item."
            )
        examples.append(example)
    return tuple(examples)
