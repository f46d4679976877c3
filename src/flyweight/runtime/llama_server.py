"""xllamacpp's server, in this process: one model, its options, and what only its port answers."""

from __future__ import annotations

import json
import queue
import secrets
import signal
import tempfile
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import EngineError, OptionError
from flyweight.runtime.memory import READ_AT_ONCE

KV_TYPES = {16: "GGML_TYPE_F16", 8: "GGML_TYPE_Q8_0"}  # of keys and values, by bits
_STATE = "state"  # the file that the server saves to, in a folder of its own


class LlamaServer:
    """A GGUF file in llama.cpp's server. Raises EngineError for one that it does not load.

    `embeds` makes it one that gives vectors, and no answers. It is freed with its last reference.
    """

    def __init__(
        self,
        gguf: Path,
        context: int,
        streams: int,
        *,
        threads: int,
        kv_bits: int = 16,
        cache_bytes: int = 0,
        embeds: bool = False,
    ) -> None:
        if kv_bits not in KV_TYPES:
            raise OptionError(f"kv_bits is {kv_bits}: choose from 16 and 8")
        self.gguf, self.context, self.streams = gguf, context, streams
        self.threads, self.kv_bits, self.cache_bytes = threads, kv_bits, cache_bytes
        self._embeds = embeds
        self._key = secrets.token_urlsafe(16)  # its loopback port answers nobody else
        self._folder = tempfile.TemporaryDirectory(prefix="flyweight-")  # where slots are saved
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
        keep_signals()
        # one token: it says that the file runs, and that the server's loop has begun; one that is
        # closed before that waits for itself for ever
        if self._embeds:
            _vector(server.handle_embeddings({"input": [0]}))
        else:
            first = {"prompt": [0], "n_predict": 1, "verbose": True, "response_fields": ["tokens"]}
            _checked(server.handle_completions(first | {"temperature": 0, "cache_prompt": False}))
        return server

    def _parameters(self, xllamacpp: Any) -> Any:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(self.gguf)
        parameters.n_parallel = self.streams
        parameters.n_ctx = -(-self.context // 256) * 256 * self.streams  # it rounds to 256 itself
        parameters.cpuparams.n_threads = self.threads
        parameters.cpuparams_batch.n_threads = self.threads
        # of a prompt as many tokens as one pass takes: others write in between, and it can be ended
        parameters.n_batch = READ_AT_ONCE
        # ids come in: the file's own template, a program that the server would try, is never run
        parameters.chat_template = "chatml"
        parameters.verbosity = -1  # silent
        parameters.api_keys = [self._key]
        parameters.n_threads_http = 1
        for unused in ("warmup", "fit_params", "ui", "cache_idle_slots"):
            setattr(parameters, unused, False)
        parameters.endpoint_slots = True
        parameters.slot_save_path = f"{self._folder.name}/"
        # copies of finished prompts in memory: up to 8 GiB by default
        parameters.cache_ram_mib = self.cache_bytes // 2**20
        parameters.n_ctx_checkpoints = 0
        if self.kv_bits != 16:
            kind = getattr(xllamacpp.ggml_type, KV_TYPES[self.kv_bits])
            parameters.cache_type_k = parameters.cache_type_v = kind
            parameters.flash_attn_type = (
                xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
            )
        if self._embeds:
            parameters.embedding = True
            parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
            parameters.n_batch = parameters.n_ubatch = parameters.n_ctx  # a text is one pass
        return parameters

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request, as the server words both, with its timings."""
        return _checked(self._server.handle_completions(request))

    def stream(self, request: dict[str, Any], take: Callable[[dict[str, Any]], object]) -> None:
        """As `complete`, piece by piece; what `take` raises ends the answer and is raised here."""
        if threading.current_thread() is threading.main_thread():
            self._stream_apart(request, take)
            return
        failure: list[BaseException] = []

        def pass_on(event: Any) -> bool:  # True ends it; no exception may cross the C++ frames
            try:
                take(_checked(event))
            except BaseException as error:
                failure.append(error)
            return bool(failure)

        self._server.handle_completions(request | {"stream": True}, pass_on)
        if failure:
            raise failure[0]

    def _stream_apart(
        self, request: dict[str, Any], take: Callable[[dict[str, Any]], object]
    ) -> None:
        """`stream` in a thread of its own: Ctrl-C is raised in the main one, at any place."""
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        ended = threading.Event()

        def pass_on(event: Any) -> bool:
            events.put(event)
            return ended.is_set()

        def work() -> None:
            try:
                self._server.handle_completions(request | {"stream": True}, pass_on)
                events.put(None)
            except BaseException as error:
                events.put(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            while (event := events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                take(_checked(event))
        finally:
            ended.set()
            worker.join()

    def embed(self, ids: list[int]) -> np.ndarray:
        """float32 [hidden], of length 1."""
        return _vector(self._server.handle_embeddings({"input": ids}))

    def saved_slot(self) -> bytes:
        """What the first stream has read."""
        self.ask("slots/0?action=save", {"filename": _STATE})
        file = Path(self._folder.name) / _STATE
        state = file.read_bytes()
        file.unlink()
        return state

    def restore_slot(self, state: bytes) -> None:
        """Give the first stream what `saved_slot` gave."""
        file = Path(self._folder.name) / _STATE
        file.write_bytes(state)
        try:
            self.ask("slots/0?action=restore", {"filename": _STATE})
        finally:
            file.unlink()

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What only the server's loopback port answers."""
        request = urllib.request.Request(
            f"{self._server.listening_address}/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=60) as response:
                return json.load(response)
        except (OSError, ValueError) as error:
            wish = path.partition("?action=")[2] or path
            raise EngineError(f"{self.gguf}: the engine did not {wish}: {error}") from error


def keep_signals() -> None:
    """Have SIGINT and SIGTERM do what they did before a server took them over.

    Only the main thread can; it calls this where another one opened the server.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _checked(response: dict[str, Any]) -> dict[str, Any]:
    """The verbose part of a response, or the engine's own complaint as an EngineError."""
    if "__verbose" not in response:
        error = response.get("error", response)
        raise EngineError(f"llama.cpp refused the request: {error.get('message', error)}")
    return response["__verbose"] | {"timings": response.get("timings", {})}


def _vector(response: Any) -> np.ndarray:
    if "data" not in response:
        error = response.get("error", response)
        raise EngineError(f"llama.cpp refused the request: {error.get('message', error)}")
    vector = np.array(response["data"][0]["embedding"], dtype=np.float32)
    return vector / max(float(np.linalg.norm(vector)), 1e-30)


__all__ = ["KV_TYPES", "LlamaServer", "keep_signals"]
