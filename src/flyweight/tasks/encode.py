"""From messages to token ids: the one place that knows prompts from answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import TemplateError

from flyweight.errors import TaskError

Message = dict[str, Any]


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
        except TemplateError as error:
            said = str(messages[-1]["content"])[:60]
            raise TaskError(
                f"the teacher's chat template refuses the messages that end in {said!r} ({error}). "
                "Change their roles or order."
            ) from error
    return tokenizer("".join(message["content"] for message in messages))["input_ids"]


def answer_ids(tokenizer: Any, answer: str) -> list[int]:
    """The ids that a perfect model writes: the answer, then the end of the turn."""
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return ids if tokenizer.eos_token_id is None else [*ids, tokenizer.eos_token_id]


def encode(tokenizer: Any, messages: Sequence[Message], answer: str) -> Example:
    """Prompt and answer as one sequence, in the form in which the model will meet them."""
    prompt = prompt_ids(tokenizer, messages)
    return Example(np.array(prompt + answer_ids(tokenizer, answer), dtype=np.int32), len(prompt))
