"""What takes part in each step of transformers' `generate`: wish, clock, grammar, streamer."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor
from transformers.generation.streamers import BaseStreamer

from flyweight.runtime.characters import WholeCharacters
from flyweight.runtime.engine import Told, Wish


def config_of(wish: Wish, ends: Collection[int]) -> GenerationConfig:
    """A wish in transformers' words; nothing is left to a model's own defaults."""
    drawn = {"do_sample": True, "temperature": wish.temperature, "top_k": 0}
    every = sorted({*ends, *wish.stop_ids})
    return GenerationConfig(
        max_new_tokens=wish.max_tokens,
        eos_token_id=every or None,
        pad_token_id=every[0] if every else 0,
        stop_strings=list(wish.stop) or None,
        return_dict_in_generate=True,
        output_logits=wish.top > 0,
        **(drawn | {"top_p": wish.top_p} if wish.temperature > 0 else {"do_sample": False}),
    )


def told_of(logits: Sequence[Tensor], ids: Sequence[int], top: int) -> tuple[Told, ...]:
    """What is told of the tokens of an answer; `logits` are those of its steps, each [1, V]."""
    told = []
    for step, i in zip(logits, ids, strict=False):
        said = step[0].float().log_softmax(-1)
        told.append(Told(i, float(said[i]), tuple(best_of(said, top))))
    return tuple(told)


def best_of(log_probabilities: Tensor, top: int) -> list[tuple[int, float]]:
    """The likeliest of [V], with their ids, best first; all of them where `top` is more."""
    best = log_probabilities.topk(min(top, len(log_probabilities)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


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


class Streamer(BaseStreamer):
    """Hands the tokens that transformers writes on to `said`, but for those that end the answer."""

    def __init__(self, said: WholeCharacters, ends: Collection[int]) -> None:
        self.said, self.ends = said, ends
        self._begun = False

    def put(self, value: Tensor) -> None:
        """Transformers' call: the prompt, then one token a step."""
        if self._begun:
            self.said.add([i for i in value.flatten().tolist() if i not in self.ends])
        self._begun = True

    def end(self) -> None:
        """Transformers' call: nothing follows. Half a character is never given."""


__all__ = ["Clock", "Grammar", "Streamer", "best_of", "config_of", "told_of"]
