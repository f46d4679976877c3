"""llama.cpp in this process: token ids in, token ids out, one stream or several.

The engine is xllamacpp's in-process server. Prompts go in as ids, so that neither its tokenizer nor
its chat template can come between what the model was trained on and what it is given. Greedy, as it
is unless a temperature is given, means the one token of highest logit: the sampler chain is `top_k`
with k = 1 and nothing else.
"""

from __future__ import annotations

import json
import secrets
import signal
import threading
import urllib.request
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flyweight.errors import EngineError, OptionError
from flyweight.runtime.threads import default_threads

# Below this one thread: a second gains a third to a half where nothing else runs, and loses tenfold
# where anything does, since each of a hundred steps a token waits for the slower of the two.

_FIELDS = [
    "tokens",
    "content",
    "timings",
    "stop_type",
    "tokens_predicted",
    "completion_probabilities",
]


@dataclass(frozen=True)
class Generation:
    """One answer. `ids` and `text` are without the token that ended it."""

    ids: list[int]
    text: str
    stop_id: int | None  # the token that ended it; None: the limit did
    written: int  # tokens computed, that one included
    seconds: float  # from the first written token to the last, as the engine counts
    prompt_seconds: float
    prompt_tokens: int  # evaluated, those reused from the stream's last prompt left out
    top: list[list[tuple[int, float]]]  # for each written token: (id, log-probability), best first


@dataclass(frozen=True)
class Streamed:
    """One answer that was given piece by piece. The engine streams text, not every token's id."""

    text: str
    stopped: bool  # ended by itself, not by the limit
    written: int  # tokens computed
    seconds: float


class LlamaEngine(AbstractContextManager["LlamaEngine"]):
    """A GGUF file, loaded: `context` tokens (prompt and answer) for each of `streams` at a time.

    `threads` None chooses: one for files under SMALL_FILE, else every core. Raises EngineError for
    a file that llama.cpp does not load.
    """

    def __init__(
        self, gguf: Path, *, context: int = 2048, threads: int | None = None, streams: int = 1
    ) -> None:
        if context < 1 or streams < 1 or (threads is not None and threads < 1):
            raise OptionError("context, threads and streams are at least 1")
        self.gguf, self.context, self.streams = Path(gguf), context, streams
        _check_magic(self.gguf)
        self.threads = threads or default_threads(self.gguf.stat().st_size)
        self._key = secrets.token_urlsafe(16)  # its loopback port answers nobody else
        self._server: Any = self._load()

    def _load(self) -> Any:
        import xllamacpp

        try:
            server = xllamacpp.Server(self._parameters(xllamacpp))  # pyright: ignore
        except RuntimeError as error:
            raise EngineError(
                f"{self.gguf}: llama.cpp does not load this file for {self.streams} x "
                f"{self.context} tokens: it is damaged, of an unknown architecture, or too large"
            ) from error
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):  # the server took them over
                handler = signal.getsignal(number)
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        # one token: it says that the file runs, and that the server's loop has begun; one that is
        # closed before that waits for itself for ever
        first = {"prompt": [0], "n_predict": 1, "verbose": True, "response_fields": ["tokens"]}
        _checked(server.handle_completions(first | {"temperature": 0.0, "cache_prompt": False}))
        return server

    def _parameters(self, xllamacpp: Any) -> Any:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(self.gguf)
        parameters.n_parallel = self.streams
        parameters.n_ctx = -(-self.context // 256) * 256 * self.streams  # it rounds to 256 itself
        parameters.cpuparams.n_threads = self.threads
        parameters.cpuparams_batch.n_threads = self.threads
        parameters.verbosity = -1  # silent
        parameters.api_keys = [self._key]
        parameters.n_threads_http = 1
        for unused in ("warmup", "fit_params", "endpoint_slots", "ui", "cache_idle_slots"):
            setattr(parameters, unused, False)
        # no copies of finished prompts in memory: up to 8 GiB by default
        parameters.cache_ram_mib = parameters.n_ctx_checkpoints = 0
        return parameters

    def generate(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        *,
        stop_ids: Collection[int] = (),
        top: int = 0,
        reuse: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Generation:
        """The greedy answer to a prompt of token ids, at most `max_tokens` long.

        It ends at the file's end-of-text tokens and at any of `stop_ids`; `top` asks for that many
        log-probabilities a token; `reuse` keeps what the stream's last prompt has in common. Above
        a `temperature` of 0 it is drawn at random, with `seed`, from the whole vocabulary.
        Raises EngineError if it does not fit.
        """
        request = self._request(prompt, max_tokens, reuse) | {"n_probs": top}
        if temperature > 0:
            request |= {"samplers": ["temperature"], "temperature": temperature, "seed": seed}
        generation = _generation(_checked(self._open.handle_completions(request)))
        ends = [place for place, i in enumerate(generation.ids) if i in stop_ids]
        if not ends:
            return generation
        ids, stop_id = generation.ids[: ends[0]], generation.ids[ends[0]]
        return replace(generation, ids=ids, text=self.detokenize(ids), stop_id=stop_id)

    def stream(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        on_text: Callable[[str], object],
        *,
        reuse: bool = True,
    ) -> Streamed:
        """As `generate`, with `on_text` given each piece of whole characters as it is written.

        What `on_text` raises ends the answer and is raised here.
        """
        request = self._request(prompt, max_tokens, reuse)
        pieces: list[dict[str, Any]] = []
        failure: list[BaseException] = []

        def take(event: Any) -> bool:  # True ends it; an exception must not cross the C++ frames
            try:
                pieces.append(_checked(event))
                if pieces[-1]["content"]:
                    on_text(pieces[-1]["content"])
            except BaseException as error:
                failure.append(error)
            return bool(failure)

        self._open.handle_completions(request | {"stream": True}, take)
        if failure:
            raise failure[0]
        return Streamed(
            text="".join(piece["content"] for piece in pieces),
            stopped=pieces[-1]["stop_type"] == "eos",
            written=pieces[-1]["tokens_predicted"],
            seconds=pieces[-1]["timings"]["predicted_ms"] / 1000,
        )

    def _request(self, prompt: Sequence[int], max_tokens: int, reuse: bool) -> dict[str, Any]:
        self._check_fit(prompt, max_tokens)
        return {
            "prompt": list(prompt),
            "n_predict": max_tokens,
            "temperature": 0.0,
            "samplers": ["top_k"],
            "top_k": 1,
            "cache_prompt": reuse,
            "return_tokens": True,
            "verbose": True,  # token ids come only with this
            "response_fields": _FIELDS,
        }

    def generate_many(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        *,
        stop_ids: Collection[int] = (),
        top: int = 0,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
        on_done: Callable[[], object] = lambda: None,
    ) -> list[Generation]:
        """The answers to many prompts, `streams` at a time, in the prompts' order; see `generate`.

        `seeds` has one for each prompt.
        """

        def one(prompt: Sequence[int], seed: int) -> Generation:
            generation = self.generate(
                prompt, max_tokens, stop_ids=stop_ids, top=top, temperature=temperature, seed=seed
            )
            on_done()
            return generation

        with ThreadPoolExecutor(self.streams) as pool:
            return list(pool.map(one, prompts, [0] * len(prompts) if seeds is None else seeds))

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """The ids into which llama.cpp splits a text; special tokens in it are recognised."""
        body = {"content": text, "add_special": add_special, "parse_special": True}
        return self._ask("tokenize", body)["tokens"]

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        return self._ask("detokenize", {"tokens": list(ids)})["content"] if ids else ""

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What only the server's loopback port answers."""
        request = urllib.request.Request(
            f"{self._open.listening_address}/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=60) as response:
                return json.load(response)
        except (OSError, ValueError) as error:
            raise EngineError(f"{self.gguf}: the engine did not {path}: {error}") from error

    def close(self) -> None:
        """Free the model; the engine answers no more."""
        self._server = None

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def _open(self) -> Any:
        if self._server is None:
            raise EngineError(f"{self.gguf}: the engine is closed; open it again")
        return self._server

    def _check_fit(self, prompt: Sequence[int], max_tokens: int) -> None:
        if not prompt or max_tokens < 1:
            raise OptionError("a prompt has at least one token, and so has an answer")
        if len(prompt) + max_tokens > self.context:
            raise EngineError(
                f"{self.gguf}: a prompt of {len(prompt)} tokens and an answer of {max_tokens} do "
                f"not fit a context of {self.context}; open the engine with a larger one"
            )


def _check_magic(gguf: Path) -> None:
    try:
        with gguf.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise EngineError(f"{gguf}: cannot be read: {error.strerror}") from error
    if magic != b"GGUF":
        raise EngineError(f"{gguf}: is not a GGUF file; `flyweight pack` writes one")


def _checked(response: dict[str, Any]) -> dict[str, Any]:
    """The verbose part of a response, or the engine's own complaint as an EngineError."""
    if "__verbose" not in response:
        error = response.get("error", response)
        raise EngineError(f"llama.cpp refused the request: {error.get('message', error)}")
    return response["__verbose"] | {"timings": response.get("timings", {})}


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
            [(choice["id"], choice["logprob"]) for choice in token["top_logprobs"]]
            for token in answer.get("completion_probabilities", [])
        ],
    )


__all__ = ["Generation", "LlamaEngine", "Streamed"]
