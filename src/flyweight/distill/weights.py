"""How much each token of a row counts in the loss: prompt, answer, tool calls within it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from flyweight.errors import OptionError
from flyweight.tasks.encode import Example

PROMPT_WEIGHT = 0.2  # of a prompt token: without it a small task is learned by heart (see LOG.md)
Spans = Sequence[tuple[int, int]]  # (first, one after the last) token in a row

# How a tool call begins and ends in what models write; without an end it goes on to the answer's.
CALLS = (
    ("<tool_call>", "</tool_call>"),  # Qwen, Hermes
    ("<|tool_call|>", "<|/tool_call|>"),  # Phi, Granite
    ("<|tool_call_start|>", "<|tool_call_end|>"),  # LFM
    ("[TOOL_CALLS]", None),  # Mistral
    ("<|python_tag|>", None),  # Llama 3
    ("```tool_code", "```"),  # Gemma
)
_CALL = re.compile(
    "|".join(
        re.escape(begin) + (r".*" if end is None else rf".*?(?:{re.escape(end)}|\Z)")
        for begin, end in CALLS
    ),
    re.DOTALL,
)


@dataclass(frozen=True)
class TokenWeights:
    """The weight of a prompt's token, of an answer's, and of one inside a tool call of the answer.

    A weight of 0 costs nothing: nothing is computed where no token is to be learned.
    """

    prompt: float = PROMPT_WEIGHT
    answer: float = 1.0
    tool_call: float = 1.0

    def __post_init__(self) -> None:
        if not all(0 <= each < math.inf for each in astuple(self)) or not any(astuple(self)):
            raise OptionError(f"{self}: weights are at least 0, and not all of them 0.")

    def of(self, length: int, prompt_length: int, tool_calls: Spans = ()) -> np.ndarray:
        """float32 [length]; `tool_calls` are those of the answer."""
        weights = np.full(length, self.answer, dtype=np.float32)
        for first, end in tool_calls:
            weights[first:end] = self.tool_call
        weights[:prompt_length] = self.prompt
        return weights


def weighted_rows(
    examples: Sequence[Example], weights: TokenWeights, tool_calls: Sequence[Spans] = ()
) -> list[dict[str, Any]]:
    """Training rows; `tool_calls` are those of each example (`find_calls`), or not asked for."""
    calls = tool_calls or [()] * len(examples)
    return [
        {
            "input_ids": example.ids,
            "weights": weights.of(len(example), example.prompt_length, spans),
            "prompt_length": example.prompt_length,
        }
        for example, spans in zip(examples, calls, strict=True)
    ]


def find_calls(tokenizer: Any, answer: str, prompt_length: int) -> list[tuple[int, int]]:
    """Where in its row an answer calls tools, by the marks of CALLS; the marks belong to the call.

    OptionError for a tokenizer that does not tell where its tokens stand.
    """
    found = [match.span() for match in _CALL.finditer(answer)]
    if not found:
        return []
    if not tokenizer.is_fast:
        raise OptionError(
            "--tool-weight: the tokenizer does not tell where its tokens stand in the text. "
            "Add a tokenizer.json, or leave the option out."
        )
    told = tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)
    starts, ends = np.array(told["offset_mapping"]).T  # of each token, in characters
    spans = []
    for first, end in found:
        inside = np.flatnonzero((ends > first) & (starts < end))
        spans.append((prompt_length + int(inside[0]), prompt_length + int(inside[-1]) + 1))
    return spans


__all__ = ["CALLS", "PROMPT_WEIGHT", "Spans", "TokenWeights", "find_calls", "weighted_rows"]
