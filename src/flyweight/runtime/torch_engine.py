"""A checkpoint in torch: whatever transformers runs, and the reference for the other engines.

Nothing here decodes by itself: transformers' `generate` does, with its cache, its sampling and its
stopping; a constraint is one more processor of its logits. Keys and values of the last prompt are
kept, so that the next one is read from where the two part.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from flyweight.checkpoint import open_checkpoint
from flyweight.errors import EngineError, OptionError
from flyweight.runtime.characters import WholeCharacters
from flyweight.runtime.constraint import Constraint
from flyweight.runtime.engine import (
    Capability,
    Engine,
    Generation,
    Piece,
    Score,
    Streamed,
    Wish,
    check_sizes,
)
from flyweight.runtime.forced import answer_logits
from flyweight.runtime.threads import cores
from flyweight.runtime.torch_steps import Clock, Grammar, Streamer, best_of, config_of, told_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SCORED = 16  # answers in one pass


class InTorch(Engine):
    """An engine whose model is torch's, here, with transformers' tokenizer; `_run` answers."""

    _tokenizer: Any
    _model: Any = None  # once it is closed
    _ends: frozenset[int]
    _grammars: Any = None

    @abstractmethod
    def _run(
        self,
        prompts: Sequence[Sequence[int]],
        seed: int,
        wish: Wish,
        *,
        reuse: bool,
        streamer: Any = None,
    ) -> tuple[list[Generation], Any]:
        """The answers to some prompts at once, and transformers' outputs, as far as they are told.

        `streamer` is one of transformers'.
        """

    def _answers(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        wish: Wish,
        reuse: bool,
        on_done: Callable[[], object],
    ) -> list[Generation]:
        # drawn answers have a seed each, which a batch has not; a row that a text ended is padded
        # with what ends answers, so that nobody could tell
        width = self.streams if wish.temperature == 0 and not wish.stop else 1
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        found: dict[int, Generation] = {}
        for start in range(0, len(order), width):
            places = order[start : start + width]
            batch = [prompts[place] for place in places]
            answers, _ = self._run(batch, seeds[places[0]], wish, reuse=reuse)
            for place, answer in zip(places, answers, strict=True):
                found[place] = answer
                on_done()
        return [found[place] for place in range(len(prompts))]

    def _streamed(
        self,
        prompt: Sequence[int],
        seed: int,
        wish: Wish,
        reuse: bool,
        on_piece: Callable[[Piece], object],
    ) -> Streamed:
        said = WholeCharacters(self.detokenize, on_piece, wish.stop)
        streamer = Streamer(said, self._ends)
        [answer], out = self._run([prompt], seed, wish, reuse=reuse, streamer=streamer)
        said.end()
        if wish.top:  # transformers gives the logits at the end, of all tokens
            on_piece(Piece("", told_of(out.logits, answer.ids, wish.top)))
        return Streamed(
            text=said.text,
            stopped=answer.stop_id is not None or said.stopped,
            written=answer.written,
            seconds=answer.seconds,
            prompt_seconds=answer.prompt_seconds,
            prompt_tokens=answer.prompt_tokens,
        )

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        return self._tokenizer(text, add_special_tokens=add_special)["input_ids"]

    def detokenize(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def _generation(
        self,
        row: int,
        written: list[int],
        wish: Wish,
        clock: Clock,
        read: int,
        out: Any,
    ) -> Generation:
        ends = self._ends | set(wish.stop_ids)
        end = next((place for place, i in enumerate(written) if i in ends), None)
        ids = written if end is None else written[:end]
        text = self.detokenize(ids)
        for stop in wish.stop:
            text = text.partition(stop)[0]
        count = len(ids) + (end is not None)
        steps = (out.logits or ())[:count] if wish.top else ()
        top = [best_of(logits[row].float().log_softmax(-1), wish.top) for logits in steps]
        return Generation(
            ids=ids,
            text=text,
            stop_id=None if end is None else written[end],
            written=count,
            seconds=clock.times[count] - clock.times[1],
            prompt_seconds=clock.times[1] - clock.times[0],
            prompt_tokens=read,
            top=top,
        )

    def _matchers(self, constraint: Constraint, count: int) -> list[Any]:
        from llguidance import LLMatcher
        from llguidance.hf import from_tokenizer

        if self._grammars is None:
            size, ends = self._grammar_size, sorted(self._ends)
            self._grammars = from_tokenizer(self._tokenizer, n_vocab=size, eos_token=ends)
        grammar = LLMatcher.grammar_from_lark(constraint.grammar)
        matchers = [LLMatcher(self._grammars, grammar) for _ in range(count)]
        if matchers and matchers[0].is_error():
            raise EngineError(f"{self.source}: the constraint does not fit its tokens")
        return matchers

    @property
    def _grammar_size(self) -> int:
        """How many tokens a grammar knows: the model's, and those that it is only given."""
        return max(self._open.config.get_text_config().vocab_size, len(self._tokenizer))

    @property
    def _open(self) -> Any:
        if self._model is None:
            raise EngineError(f"{self.source}: the engine is closed; open it again")
        return self._model

    @contextmanager
    def _running(self) -> Iterator[Any]:
        """The model, with this engine's threads while it runs."""
        model = self._open
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                yield model
        finally:
            torch.set_num_threads(before)


class TorchEngine(InTorch):
    """A Hugging Face folder in transformers, on the processor, or on `device`.

    `streams` prompts are answered in one padded batch. Raises TeacherError for a folder that cannot
    be loaded.
    """

    name: ClassVar[str] = "torch"
    can: ClassVar[frozenset[Capability]] = frozenset(
        {"stream", "batch", "log-probabilities", "score", "embed", "constrain", "reuse"}
    )

    def __init__(
        self,
        folder: Path,
        *,
        context: int = 2048,
        threads: int | None = None,
        streams: int = 1,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        check_sizes(context, streams, threads)
        if dtype not in DTYPES:
            raise OptionError(f"dtype is {dtype}: choose from {', '.join(DTYPES)}")
        checkpoint = open_checkpoint(folder)
        if not checkpoint.family.causal:
            raise EngineError(f"{folder}: is an encoder, which writes no answers")
        self.source, self.context, self.streams = Path(folder), context, streams
        self.threads = threads or cores()
        self._tokenizer = checkpoint.tokenizer()
        self._model = checkpoint.model(dtype).to(device)
        self._ends = ends_of(self._model, self._tokenizer)
        self._known: tuple[list[int], Any] = ([], None)  # ids that were read, and their cache

    def score_many(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        on_done: Callable[[], object] = lambda: None,
    ) -> list[Score]:
        """The scores of (prompt, answer) pairs, in their order, SCORED in one pass."""
        for prompt, answer in pairs:
            self._check_fit(prompt, len(answer))
        given = [(list(prompt), list(answer)) for prompt, answer in pairs]
        found: dict[int, Score] = {}
        with self._running() as model:
            for place, logits, ids in answer_logits(model, given, SCORED, title=""):
                said = logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0]  # [A]
                greedy = bool((logits.argmax(-1) == ids).all())
                found[place] = Score(said.double().cpu().numpy(), greedy)
                on_done()
        return [found[place] for place in range(len(pairs))]

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """float32 [hidden]: the mean of the last hidden states, scaled to length 1."""
        self._check_fit(ids, 1)
        with self._running() as model:
            given = torch.tensor([list(ids)], device=model.device)
            hidden = model.base_model(input_ids=given, use_cache=False).last_hidden_state[0]
        vector = hidden.float().mean(0).cpu().numpy()
        return vector / max(float(np.linalg.norm(vector)), 1e-30)

    def close(self) -> None:
        self._model, self._known = None, ([], None)

    def _run(
        self,
        prompts: Sequence[Sequence[int]],
        seed: int,
        wish: Wish,
        *,
        reuse: bool,
        streamer: Any = None,
    ) -> tuple[list[Generation], Any]:
        """One batch of prompts, padded on the left, through transformers' `generate`."""
        longest = max(map(len, prompts))
        ids = torch.zeros((len(prompts), longest), dtype=torch.long)  # [B, T]
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
            mask[row, longest - len(prompt) :] = 1
        cache, read = self._cache(list(prompts[0])) if reuse else (None, 0)
        clock = Clock()
        processors: list[Any] = [clock]
        if wish.constraint is not None:
            processors.append(
                Grammar(self._matchers(wish.constraint, len(prompts)), longest, self._ends)
            )
        with self._running() as model, torch.random.fork_rng():
            torch.manual_seed(seed)
            out = model.generate(
                ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=config_of(wish, self._ends),
                logits_processor=processors,
                streamer=streamer,
                past_key_values=cache,
                tokenizer=self._tokenizer,
            )
        written = out.sequences[:, longest:].tolist()
        answers = [
            self._generation(row, written[row], wish, clock, len(prompts[row]) - read, out)
            for row in range(len(prompts))
        ]
        if len(prompts) == 1:
            self._known = ([*prompts[0], *written[0][:-1]], out.past_key_values)
        return answers, out

    def _cache(self, prompt: list[int]) -> tuple[Any, int]:
        """The keys and values of what the last prompt has in common, and how many tokens it is."""
        known, cache = self._known
        self._known = ([], None)  # it is changed from here on
        shared = shared_beginning(known, prompt)
        parts = shared < len(known)
        if not shared or not cache.is_croppable or (parts and any(cache.is_sliding)):
            return None, 0  # a window that slides has lost what it would go back to
        if parts:
            cache.crop(shared - len(known))  # the number of those that go, below zero
        return cache, shared


def shared_beginning(read: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens a prompt has in common with what was read, one being left to read."""
    pairs = zip(read, prompt[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def ends_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer; transformers' other wishes for it are put away."""
    from transformers import GenerationConfig

    text = model.config.get_text_config()
    told = [model.generation_config.eos_token_id, text.eos_token_id, tokenizer.eos_token_id]
    model.generation_config = GenerationConfig()
    flat = [i for each in told for i in (each if isinstance(each, list) else [each])]
    return frozenset(i for i in flat if i is not None)


__all__ = ["DTYPES", "InTorch", "TorchEngine", "ends_of", "shared_beginning"]
