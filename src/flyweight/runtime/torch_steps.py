"""What takes part in each step of transformers' `generate`: options, clock, grammar, streamer."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor
from transformers.generation.streamers import BaseStreamer

from flyweight.runtime.constraint import Constraint


@dataclass(frozen=True)
class Options:
    """How a batch is answered; see `Engine.generate`."""

    stop_ids: Collection[int] = ()
    stop: Sequence[str] = ()
    top: int = 0
    temperature: float = 0.0
    seed: int = 0
    constraint: Constraint | None = None

    def config(self, max_tokens: int, ends: Collection[int]) -> GenerationConfig:
        """The same in transformers' words; nothing is left to a model's own defaults."""
        drawn = {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        every = sorted({*ends, *self.stop_ids})
        return GenerationConfig(
            max_new_tokens=max_tokens,
            eos_token_id=every or None,
            pad_token_id=every[0] if every else 0,
            stop_strings=list(self.stop) or None,
            return_dict_in_generate=True,
            output_logits=self.top > 0,
            **(drawn if self.temperature > 0 else {"do_sample": False}),
        )


class Clock(LogitsProcessor):
    """When the batch began, and when each step's logits were there."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.times.append(time.perf_counter())
        return scores


class Grammar(LogitsProcessor):
    """Leaves each row the tokens that its matcher allows, and `ends` where nothing may follow.

    `start` is the length of the prompts.
    """

    def __init__(self, matchers: Sequence[Any], start: int, ends: Collection[int]) -> None:
        self.matchers, self.start, self.ends = list(matchers), start, sorted(ends)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        from llguidance.torch import allocate_token_bitmask, fill_next_token_bitmask

        masks = allocate_token_bitmask(len(self.matchers), scores.shape[-1])  # int32 [B, V / 32]
        for row, matcher in enumerate(self.matchers):
            if input_ids.shape[1] > self.start and not matcher.is_stopped():
                matcher.consume_token(int(input_ids[row, -1]))
            if not matcher.is_stopped():
                fill_next_token_bitmask(matcher, masks, row)
        bits = masks[:, :, None] >> torch.arange(32, dtype=torch.int32)  # [B, V / 32, 32]
        allowed = (bits & 1).bool().flatten(1)[:, : scores.shape[-1]]
        for row, matcher in enumerate(self.matchers):
            if matcher.is_stopped():
                allowed[row] = False
                allowed[row, self.ends] = True
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)


class Pieces(BaseStreamer):
    """Gives text on as it is written, in whole characters."""

    def __init__(
        self,
        detokenize: Callable[[Sequence[int]], str],
        on_text: Callable[[str], object],
        ends: Collection[int],
    ) -> None:
        self.detokenize, self.on_text, self.ends = detokenize, on_text, ends
        self.text = ""
        self._ids: list[int] | None = None  # None: the prompt comes first

    def put(self, value: Tensor) -> None:
        """Transformers' call: the prompt, then one token a step."""
        if self._ids is None:
            self._ids = []
            return
        self._ids += [i for i in value.flatten().tolist() if i not in self.ends]
        whole = self.detokenize(self._ids)
        if whole.endswith("\ufffd"):  # a character whose bytes are not all there
            return
        piece, self.text = whole[len(self.text) :], whole
        if piece:
            self.on_text(piece)

    def end(self) -> None:
        """Transformers' call: nothing follows. Half a character is never given."""


__all__ = ["Clock", "Grammar", "Options", "Pieces"]
