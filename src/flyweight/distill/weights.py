"""How much each token of a row counts in the loss: prompt, answer, tool calls within it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from flyweight.errors import OptionError


@dataclass(frozen=True)
class TokenWeights:
    """The weight of a prompt's token, of an answer's, and of one inside a tool call of the answer.

    A weight of 0 costs nothing: nothing is computed where no token is to be learned.
    """

    prompt: float = 0.2
    answer: float = 1.0
    tool_call: float = 1.0

    def __post_init__(self) -> None:
        if not all(0 <= each < math.inf for each in astuple(self)) or not any(astuple(self)):
            raise OptionError(f"{self}: weights are at least 0, and not all of them 0.")

    def of(
        self, length: int, prompt_length: int, tool_calls: Sequence[tuple[int, int]] = ()
    ) -> np.ndarray:
        """float32 [length]; `tool_calls` are (first, one after the last) tokens in the row."""
        weights = np.full(length, self.answer, dtype=np.float32)
        for first, end in tool_calls:
            weights[first:end] = self.tool_call
        weights[:prompt_length] = self.prompt
        return weights


__all__ = ["TokenWeights"]
