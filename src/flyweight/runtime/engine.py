"""What every engine is: a model, loaded, that takes token ids and gives token ids.

Engines differ in what they can do beside answering: `can` says it, and what is not in it is refused
with the name of an engine that can. Ids and not text go in, so that no engine's own tokenizer or
chat template can come between what a model was trained on and what it is given.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from flyweight.errors import EngineError, OptionError
from flyweight.runtime.constraint import Constraint

Capability = Literal[
    "stream",  # text as it is written
    "batch",  # several prompts in one pass
    "log-probabilities",  # of the likeliest tokens at each place
    "score",  # log-probabilities of a given answer
    "embed",  # a text as a vector
    "constrain",  # answers that a grammar allows
    "reuse",  # what a prompt has in common with the last one is not read again
    "state",  # what was read is saved and restored
]


@dataclass(frozen=True)
class Generation:
    """One answer. `ids` and `text` are without what ended it."""

    ids: list[int]
    text: str
    stop_id: int | None  # the token that ended it; None: the limit did, or a text of `stop`
    written: int  # tokens computed, that one included
    seconds: float  # from the first written token to the last, as the engine counts
    prompt_seconds: float
    prompt_tokens: int  # evaluated, those reused from the stream's last prompt left out
    # for each written token: (id, log-probability), best first; where none was asked for, and for
    # a token that ends within a character in llama.cpp, an empty one
    top: list[list[tuple[int, float]]]


@dataclass(frozen=True)
class Streamed:
    """One answer that was given piece by piece. Engines stream text, not every token's id."""

    text: str
    stopped: bool  # ended by itself, not by the limit
    written: int  # tokens computed
    seconds: float


@dataclass(frozen=True)
class Score:
    """How likely a given answer is: natural log-probabilities, float [A], one for each token.

    `greedy`: each of its tokens is the likeliest one at its place.
    """

    log_probabilities: np.ndarray
    greedy: bool

    @property
    def total(self) -> float:
        return float(self.log_probabilities.sum())


class Engine(AbstractContextManager["Engine"], ABC):
    """A model in an engine: `context` tokens for each of `streams` answers at a time.

    One thread may call it; `generate_many` and `score_many` use the streams. After `close` every
    call raises EngineError.
    """

    name: ClassVar[str]
    can: ClassVar[frozenset[Capability]]

    source: Path  # the file or folder that it runs
    context: int
    streams: int
    threads: int

    @abstractmethod
    def generate(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        *,
        stop_ids: Collection[int] = (),
        stop: Sequence[str] = (),
        top: int = 0,
        reuse: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        constraint: Constraint | None = None,
    ) -> Generation:
        """The greedy answer to a prompt of token ids, at most `max_tokens` long.

        It ends at the model's end-of-text tokens, at any of `stop_ids`, and before any text of
        `stop`; `top` asks for that many log-probabilities a token, before temperature and
        constraint; `reuse` keeps what the stream's last prompt has in common. Above a `temperature`
        of 0 it is drawn at random, with `seed`, from all tokens that the constraint allows.
        Raises EngineError if it does not fit, OptionError for numbers out of range.
        """

    def generate_many(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        *,
        stop_ids: Collection[int] = (),
        stop: Sequence[str] = (),
        top: int = 0,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
        constraint: Constraint | None = None,
        on_done: Callable[[], object] = lambda: None,
    ) -> list[Generation]:
        """The answers to many prompts, `streams` at a time, in the prompts' order; see `generate`.

        `seeds` has one for each prompt; `on_done` is called once for each answer.
        """

        def one(prompt: Sequence[int], seed: int) -> Generation:
            generation = self.generate(
                prompt,
                max_tokens,
                stop_ids=stop_ids,
                stop=stop,
                top=top,
                temperature=temperature,
                seed=seed,
                constraint=constraint,
            )
            on_done()
            return generation

        with ThreadPoolExecutor(self.streams) as pool:
            return list(pool.map(one, prompts, [0] * len(prompts) if seeds is None else seeds))

    def stream(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        on_text: Callable[[str], object],
        *,
        reuse: bool = True,
        constraint: Constraint | None = None,
    ) -> Streamed:
        """As `generate`, with `on_text` given each piece of whole characters as it is written.

        What `on_text` raises ends the answer and is raised here.
        """
        raise self._unable("stream")

    def score(self, prompt: Sequence[int], answer: Sequence[int]) -> Score:
        """How likely this answer to this prompt is, token by token. Both have a token at least."""
        [found] = self.score_many([(prompt, answer)])
        return found

    def score_many(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        on_done: Callable[[], object] = lambda: None,
    ) -> list[Score]:
        """The scores of (prompt, answer) pairs, in their order."""
        raise self._unable("score")

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """float32 [hidden]: the mean of the last hidden states, scaled to length 1."""
        raise self._unable("embed")

    @abstractmethod
    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """The ids of a text; special tokens that it names are recognised."""

    @abstractmethod
    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""

    def count_tokens(self, text: str) -> int:
        """How many tokens a text is, without what the tokenizer puts around it."""
        return len(self.tokenize(text, add_special=False))

    def save_state(self, file: Path) -> None:
        """Write what the one stream has read, whole or not at all, for `load_state`."""
        raise self._unable("state")

    def load_state(self, file: Path) -> None:
        """Go on where `save_state` was called: the next prompt, with `reuse`, need not read it.

        Raises EngineError for a file that is damaged or of another model.
        """
        raise self._unable("state")

    @abstractmethod
    def close(self) -> None:
        """Free the model; the engine answers no more."""

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _unable(self, wish: Capability) -> EngineError:
        does = {"log-probabilities": "give log-probabilities", "state": "save its state"}
        able = "llama.cpp" if wish == "state" else "llama.cpp or torch"
        return EngineError(f"{self.source}: {self.name} cannot {does.get(wish, wish)}; use {able}")

    def _check_fit(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        *,
        stop: Sequence[str] = (),
        top: int = 0,
        temperature: float = 0.0,
    ) -> None:
        if not all(stop) or not math.isfinite(temperature) or temperature < 0 or top < 0:
            raise OptionError("top and temperature are 0 or more, and no text of stop is empty")
        if not prompt or max_tokens < 1:
            raise OptionError("a prompt has at least one token, and so has an answer")
        if len(prompt) + max_tokens > self.context:
            raise EngineError(
                f"{self.source}: a prompt of {len(prompt)} tokens and an answer of {max_tokens} do "
                f"not fit a context of {self.context}; open the engine with a larger one"
            )


def check_sizes(context: int, streams: int, threads: int | None) -> None:
    """OptionError unless each is at least 1."""
    if context < 1 or streams < 1 or (threads is not None and threads < 1):
        raise OptionError("context, threads and streams are at least 1")


__all__ = ["Capability", "Engine", "Generation", "Score", "Streamed", "check_sizes"]
