"""What every engine is: a model, loaded, that takes token ids and gives token ids.

Engines differ in what they can do beside answering: `can` says it, and what is not in it is refused
with the name of an engine that can. Ids and not text go in, so that no engine's own tokenizer or
chat template can come between what a model was trained on and what it is given.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
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
    "concurrent",  # several threads may call at once, each for a stream
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
class Wish:
    """How prompts are answered; see `Engine.generate`."""

    max_tokens: int
    stop_ids: Collection[int] = ()
    stop: Sequence[str] = ()
    top: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    constraint: Constraint | None = None


@dataclass(frozen=True)
class Told:
    """A token that was written: its natural log-probability, and the likeliest ones at its place.

    They are those before temperature and constraint. A token that ends within a character is told
    of with the one that ends the character, or not at all.
    """

    id: int
    log_probability: float
    top: tuple[tuple[int, float], ...]  # (id, log-probability), best first


@dataclass(frozen=True)
class Piece:
    """What is given on while an answer is written: whole characters; `told` where it was asked for.

    One without text comes while a prompt is read: `read` says how many of its tokens have been
    computed by then, and the first one in `reused` how many need not be.
    """

    text: str
    told: tuple[Told, ...] = ()
    read: int = 0
    reused: int = 0


@dataclass(frozen=True)
class Streamed:
    """One answer that was given piece by piece. Engines stream text, not every token's id."""

    text: str
    stopped: bool  # ended by itself or by a text of `stop`, not by the limit
    written: int  # tokens computed
    seconds: float  # from the first written token to the last, as the engine counts
    prompt_seconds: float
    prompt_tokens: int  # evaluated, those reused left out


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

    One thread may call it, or several where it is "concurrent"; `generate_many` and `score_many`
    use the streams. After `close` every call raises EngineError.
    """

    name: ClassVar[str]
    can: ClassVar[frozenset[Capability]]

    source: Path  # the file or folder that it runs
    context: int
    streams: int
    threads: int

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
        top_p: float = 1.0,
        seed: int = 0,
        constraint: Constraint | None = None,
    ) -> Generation:
        """The greedy answer to a prompt of token ids, at most `max_tokens` long.

        It ends at the model's end-of-text tokens, at any of `stop_ids`, and before any text of
        `stop` (`ids` may hold the tokens of that text, `text` does not). `top` asks for that many
        log-probabilities a token, before temperature and constraint; `reuse` keeps what the
        stream's last prompt has in common, where the engine can. Above a `temperature` of 0 it is
        drawn at random, with `seed`, from all tokens that the constraint allows, or from the
        likeliest of them that make up `top_p` of the probability. Raises EngineError if it does not
        fit or the engine cannot, OptionError for numbers out of range.
        """
        wish = Wish(max_tokens, stop_ids, stop, top, temperature, top_p, constraint)
        self._check(prompt, wish, seed)
        [answer] = self._answers([prompt], [seed], wish, reuse, lambda: None)
        self._hold(answer.text, answer.stop_id is not None, wish)
        return answer

    def generate_many(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        *,
        stop_ids: Collection[int] = (),
        stop: Sequence[str] = (),
        top: int = 0,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
        constraint: Constraint | None = None,
        on_done: Callable[[], object] = lambda: None,
    ) -> list[Generation]:
        """The answers to many prompts, `streams` at a time, in the prompts' order; see `generate`.

        `seeds` has one for each prompt; `on_done` is called once for each answer.
        """
        wish = Wish(max_tokens, stop_ids, stop, top, temperature, top_p, constraint)
        seeds = [0] * len(prompts) if seeds is None else seeds
        if len(seeds) != len(prompts):
            raise OptionError(f"{len(seeds)} seeds do not fit {len(prompts)} prompts: give as many")
        for prompt, seed in zip(prompts, seeds, strict=True):
            self._check(prompt, wish, seed)
        answers = self._answers(prompts, seeds, wish, False, on_done)
        for answer in answers:
            self._hold(answer.text, answer.stop_id is not None, wish)
        return answers

    @abstractmethod
    def _answers(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        wish: Wish,
        reuse: bool,
        on_done: Callable[[], object],
    ) -> list[Generation]:
        """What `generate` and `generate_many` promise, of what was checked."""

    def stream(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        on_piece: Callable[[Piece], object],
        *,
        stop: Sequence[str] = (),
        top: int = 0,
        reuse: bool = True,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        constraint: Constraint | None = None,
    ) -> Streamed:
        """As `generate`, with `on_piece` given each piece of whole characters as it is written.

        What `on_piece` raises ends the answer and is raised here.
        """
        wish = Wish(max_tokens, (), stop, top, temperature, top_p, constraint)
        self._check(prompt, wish, seed)
        answer = self._streamed(prompt, seed, wish, reuse, on_piece)
        self._hold(answer.text, answer.stopped, wish)
        return answer

    def _streamed(
        self,
        prompt: Sequence[int],
        seed: int,
        wish: Wish,
        reuse: bool,
        on_piece: Callable[[Piece], object],
    ) -> Streamed:
        """What `stream` promises, of what was checked."""
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

    def _check(self, prompt: Sequence[int], wish: Wish, seed: int) -> None:
        """What every engine refuses of a wish before it begins."""
        if wish.constraint is not None and "constrain" not in self.can:
            raise self._unable("constrain")
        if wish.top and "log-probabilities" not in self.can:
            raise self._unable("log-probabilities")
        warm = wish.temperature
        if not math.isfinite(warm) or warm < 0 or wish.top < 0 or not 0 <= seed < 2**32:
            raise OptionError("top and temperature are at least 0, a seed is less than 2**32")
        if not 0 < wish.top_p <= 1:
            raise OptionError(f"top_p is {wish.top_p}: give more than 0, at most 1")
        if not all(wish.stop):
            raise OptionError("a text of stop is empty: it would end every answer at once")
        self._check_fit(prompt, wish.max_tokens)

    def _hold(self, text: str, ended: bool, wish: Wish) -> None:
        """EngineError for an answer that does not hold to its constraint."""
        whole = ended and not wish.stop and not wish.stop_ids
        if wish.constraint is not None and not wish.constraint.allows(text, whole=whole):
            raise EngineError(
                f"{self.source}: {self.name} gave the constraint up while it wrote: it is too "
                "large, or the model's tokens cannot write it; simplify it"
            )

    def _check_fit(self, prompt: Sequence[int], max_tokens: int) -> None:
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


__all__ = ["Capability", "Engine", "Generation", "Piece", "Score", "Streamed", "Told",
           "Wish", "check_sizes"]  # fmt: skip
