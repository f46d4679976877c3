"""llama.cpp in this process: token ids in, token ids out, one stream or several.

The engine is xllamacpp's in-process server (llama_server.py). Greedy, as it is unless a temperature
is given, means the one token of highest logit: the sampler chain is `top_k` with k = 1 and nothing
else. A given answer is scored by a grammar that allows nothing else: the log-probabilities that the
server gives are those before the grammar. That costs a step a token, since it exposes no other way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from flyweight.errors import EngineError
from flyweight.folder import sha256_of
from flyweight.runtime.constraint import Constraint
from flyweight.runtime.engine import (
    Capability,
    Engine,
    Generation,
    Piece,
    Score,
    Streamed,
    Told,
    Wish,
    check_sizes,
)
from flyweight.runtime.llama_server import LlamaServer
from flyweight.runtime.saved_state import read_state, write_state
from flyweight.runtime.threads import default_threads

_ALL = 10**6  # tokens; the server takes as many as there are
_FIELDS = [
    "tokens",
    "content",
    "timings",
    "stop_type",
    "tokens_predicted",
    "completion_probabilities",
]


class LlamaEngine(Engine):
    """A GGUF file, loaded: `context` tokens (prompt and answer) for each of `streams` at a time.

    `threads` None chooses: one for files under SMALL_FILE, else every core. `kv_bits` 8 holds the
    keys and values of the context in half the memory; `cache_bytes` keeps what other prompts read,
    so that a stream can go back to them. Raises EngineError for what llama.cpp does not load.
    """

    name: ClassVar[str] = "llama.cpp"
    can: ClassVar[frozenset[Capability]] = frozenset(
        {
            "stream",
            "batch",
            "log-probabilities",
            "score",
            "embed",
            "constrain",
            "reuse",
            "state",
            "concurrent",
        }
    )

    def __init__(
        self,
        gguf: Path,
        *,
        context: int = 2048,
        threads: int | None = None,
        streams: int = 1,
        kv_bits: int = 16,
        cache_bytes: int = 0,
    ) -> None:
        check_sizes(context, streams, threads)
        self.source, self.context, self.streams = Path(gguf), context, streams
        check_magic(self.source)
        self.threads = threads or default_threads(self.source.stat().st_size)
        self._server: LlamaServer | None = LlamaServer(
            self.source,
            context,
            streams,
            threads=self.threads,
            kv_bits=kv_bits,
            cache_bytes=cache_bytes,
        )
        self._embedder: LlamaServer | None = None

    def _answers(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        wish: Wish,
        reuse: bool,
        on_done: Callable[[], object],
    ) -> list[Generation]:
        def one(prompt: Sequence[int], seed: int) -> Generation:
            answer = self._answer(prompt, seed, wish, reuse)
            on_done()
            return answer

        with ThreadPoolExecutor(self.streams) as pool:
            return list(pool.map(one, prompts, seeds))

    def _answer(self, prompt: Sequence[int], seed: int, wish: Wish, reuse: bool) -> Generation:
        generation = _generation(self._open.complete(_request(prompt, seed, wish, reuse)))
        ends = [place for place, i in enumerate(generation.ids) if i in wish.stop_ids]
        if not ends:
            return generation
        ids, stop_id = generation.ids[: ends[0]], generation.ids[ends[0]]
        return replace(generation, ids=ids, text=self.detokenize(ids), stop_id=stop_id)

    def _streamed(
        self,
        prompt: Sequence[int],
        seed: int,
        wish: Wish,
        reuse: bool,
        on_piece: Callable[[Piece], object],
    ) -> Streamed:
        texts: list[str] = []
        last: dict[str, Any] = {}

        def take(event: dict[str, Any]) -> None:
            nonlocal last
            last, text = event, event["content"]
            texts.append(text)
            told = tuple(_told_of(each) for each in event.get("completion_probabilities", []))
            far = event.get("prompt_progress") or {"processed": 0, "cache": 0}
            read = far["processed"] - far["cache"]
            on_piece(Piece(text, told, read, 0 if read else far["cache"]))

        # the server then says how far it has read, so that `on_piece` can end it before it writes
        request = _request(prompt, seed, wish, reuse) | {"return_progress": True}
        self._open.stream(request, take)
        timings = last["timings"]
        return Streamed(
            text="".join(texts),
            stopped=last["stop_type"] in ("eos", "word"),
            written=last["tokens_predicted"],
            seconds=timings.get("predicted_ms", 0.0) / 1000,
            prompt_seconds=timings.get("prompt_ms", 0.0) / 1000,
            prompt_tokens=timings.get("prompt_n", 0),
        )

    def score_many(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        on_done: Callable[[], object] = lambda: None,
    ) -> list[Score]:
        def one(pair: tuple[Sequence[int], Sequence[int]]) -> Score:
            found = self._score(*pair)
            on_done()
            return found

        with ThreadPoolExecutor(self.streams) as pool:
            return list(pool.map(one, pairs))

    def _score(self, prompt: Sequence[int], answer: Sequence[int]) -> Score:
        self._check_fit(prompt, len(answer))
        wish = Wish(len(answer), top=1, constraint=Constraint.tokens(answer))
        written = self._open.complete(_request(prompt, 0, wish, True))
        if written["tokens"] != list(answer):
            raise EngineError(
                f"{self.source}: llama.cpp cannot score an answer of {len(answer)} tokens with "
                "one in it that ends answers; score it in torch"
            )
        said = [
            self._score_token([*prompt, *answer[:place]], told["id"])
            if "logprob" not in told
            else (told["logprob"], told["top_logprobs"][0]["id"] == told["id"])
            for place, told in enumerate(_told(written))
        ]
        return Score(np.array([each for each, _ in said]), all(greedy for _, greedy in said))

    def _score_token(self, prompt: Sequence[int], token: int) -> tuple[float, bool]:
        """The log-probability of a token that ends within a character, and whether it is the best.

        The server is silent about such tokens: it is asked about all at a place where another one
        is written.
        """
        wish = Wish(1, top=_ALL, constraint=Constraint.regex("[ -~]"))
        [found] = self._open.complete(_request(prompt, 0, wish, True))["completion_probabilities"]
        best = found["top_logprobs"]
        return next(each["logprob"] for each in best if each["id"] == token), best[0]["id"] == token

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        self._check_fit(ids, 1)
        _ = self._open
        if self._embedder is None:  # the server that answers does not embed
            self._embedder = LlamaServer(
                self.source, self.context, 1, threads=self.threads, embeds=True
            )
        return self._embedder.embed(list(ids))

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        body = {"content": text, "add_special": add_special, "parse_special": True}
        return self._open.ask("tokenize", body)["tokens"]

    def detokenize(self, ids: Sequence[int]) -> str:
        return self._open.ask("detokenize", {"tokens": list(ids)})["content"] if ids else ""

    def save_state(self, file: Path) -> None:
        self._check_one_stream()
        write_state(file, self._open.saved_slot(), self._identity)

    def load_state(self, file: Path) -> None:
        self._check_one_stream()
        self._open.restore_slot(read_state(file, self._identity))

    def _check_one_stream(self) -> None:
        if self.streams > 1:
            raise EngineError(
                f"{self.source}: state is that of one stream; this has {self.streams}"
            )

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What a saved state belongs to."""
        return {"engine": self.name, "model": sha256_of(self.source), "kv_bits": self._open.kv_bits}

    def close(self) -> None:
        self._server = self._embedder = None

    @property
    def _open(self) -> LlamaServer:
        if self._server is None:
            raise EngineError(f"{self.source}: the engine is closed; open it again")
        return self._server


def _request(prompt: Sequence[int], seed: int, wish: Wish, reuse: bool) -> dict[str, Any]:
    """A wish as the server words it."""
    request: dict[str, Any] = {
        "prompt": list(prompt),
        "n_predict": wish.max_tokens,
        "cache_prompt": reuse,
        "n_probs": wish.top,
        "stop": list(wish.stop),
        "return_tokens": True,
        "verbose": True,  # token ids come only with this
        "response_fields": _FIELDS,
    }
    if wish.temperature > 0:
        chain = ["temperature", *(["top_p"] if wish.top_p < 1 else [])]  # transformers' order
        warm = {"temperature": wish.temperature, "top_p": wish.top_p, "seed": seed}
        request |= {"samplers": chain, "min_keep": 1, **warm}
    else:
        request |= {"samplers": ["top_k"], "top_k": 1, "temperature": 0.0}
    if wish.constraint is not None:
        request["grammar"] = f"%llguidance {{}}\n{wish.constraint.grammar}"
    return request


def _told_of(told: dict[str, Any]) -> Told:
    """What the server says of a token, in our words."""
    top = tuple((each["id"], each["logprob"]) for each in told["top_logprobs"])
    return Told(told["id"], told["logprob"], top)


def check_magic(gguf: Path) -> None:
    """EngineError unless a file begins as GGUF files do."""
    try:
        with gguf.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise EngineError(f"{gguf}: cannot be read: {error.strerror}") from error
    if magic != b"GGUF":
        raise EngineError(f"{gguf}: is not a GGUF file; `flyweight pack` writes one")


def _generation(answer: dict[str, Any]) -> Generation:
    timings, stopped = answer["timings"], answer["stop_type"] == "eos"
    return Generation(
        ids=answer["tokens"][:-1] if stopped else answer["tokens"],
        text=answer["content"],
        stop_id=answer["tokens"][-1] if stopped else None,
        written=len(answer["tokens"]),
        seconds=timings.get("predicted_ms", 0.0) / 1000,
        prompt_seconds=timings.get("prompt_ms", 0.0) / 1000,
        prompt_tokens=timings.get("prompt_n", 0),
        top=[
            [(choice["id"], choice["logprob"]) for choice in token.get("top_logprobs", [])]
            for token in _told(answer)
        ],
    )


def _told(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """What the server says of each written token, its id alone where it says nothing.

    It leaves out tokens that end within a character, and not their places: where what it says fits
    more places than one, it is taken for nothing.
    """
    tokens, told = answer["tokens"], answer.get("completion_probabilities", [])
    first, last = _places(tokens, told), _places(tokens[::-1], told[::-1])[::-1]
    known = {
        place: one
        for one, place, other in zip(told, first, last, strict=True)
        if place == len(tokens) - 1 - other
    }
    return [known.get(place, {"id": token}) for place, token in enumerate(tokens)]


def _places(tokens: list[int], told: list[dict[str, Any]]) -> list[int]:
    """The first place in `tokens` that each of `told`, which come in their order, can have."""
    places = []
    for one in told:
        places.append(tokens.index(one["id"], places[-1] + 1 if places else 0))
    return places


__all__ = ["LlamaEngine", "check_magic"]
