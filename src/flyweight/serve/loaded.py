"""A model in its engine, as requests meet it; and how models are opened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.runtime.chat_format import ChatFormat, encoder
from flyweight.runtime.engine import Engine
from flyweight.runtime.gguf_header import read_header
from flyweight.runtime.gguf_tokens import around
from flyweight.runtime.open_model import Found
from flyweight.runtime.tool_calls import CallForm, call_form
from flyweight.serve.faults import Fault
from flyweight.serve.line import Line

_SLACK = 2  # times: normalising may shorten a text


@dataclass(frozen=True)
class Settings:
    """How models are opened. `context` None: what each was made for, USUAL_CONTEXT at most."""

    context: int | None = None
    streams: int = 4
    places: int = 64  # in the line of each model
    threads: int | None = None
    bits: int | None = None
    kv_bits: int = 16
    cache_bytes: int = 0
    memory: int | None = None  # bytes of all models; None: what is free, less KEPT_FREE
    idle: float = 900.0  # seconds after which a model is put away
    patience: float = 20.0  # seconds that a model waits for the place of those in use
    image_hosts: Sequence[str] = ()  # that pictures may be taken from
    image_folder: Path | None = None  # that pictures may be read from


class Loaded:
    """A model in its engine, with its line and the threads that its streams are waited for in."""

    def __init__(self, name: str, engine: Engine, found: Found, settings: Settings) -> None:
        self.name, self.engine, self.found = name, engine, found
        self.bytes = found.gguf.stat().st_size
        streams = engine.streams if "concurrent" in engine.can else 1
        self.line = Line(streams, settings.places)
        self.threads = ThreadPoolExecutor(streams, thread_name_prefix=f"answers-{name}")
        self._embedding = threading.Lock()

    @cached_property
    def _encode(self) -> Callable[[str], list[int]]:
        return encoder(self.engine, self.found.gguf, self.found.folder)

    def image(self, url: str) -> Any:
        """The picture that a request names. Fault 400: this model has no eyes."""
        raise Fault(
            400,
            f"The model {self.name} has no eyes: leave the picture out, or ask one that has.",
            param="messages",
        )

    def show(self, image: Any) -> None:
        """What is asked next is about this picture, or about none."""

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """float32 [hidden], of length 1; one text at a time."""
        with self._embedding:
            return self.engine.embed(ids)

    @cached_property
    def keys(self) -> dict[str, Any]:
        """What the header of its file says."""
        return read_header(self.found.gguf).keys

    def check_length(self, text: str) -> None:
        """Fault 400 for a text that no tokens of the context could hold, before it is split."""
        if len(text.encode()) > _SLACK * self.engine.context * self._longest:
            raise Fault(
                400,
                f"The prompt has {len(text):,} characters, more than the {self.engine.context:,} "
                "tokens of the context can hold: it does not fit. Shorten it.",
                code="context_length_exceeded",
            )

    @cached_property
    def _longest(self) -> int:
        """Bytes of the longest token."""
        return max(len(token.encode()) for token in self.keys["tokenizer.ggml.tokens"])

    def tokens(self, text: str) -> list[int]:
        """The ids of a plain text, with what the tokenizer puts around it."""
        self.check_length(text)
        return [*around(self.keys, "bos"), *self._encode(text), *around(self.keys, "eos")]

    @cached_property
    def form(self) -> ChatFormat:
        """OptionError where there is no chat template, or none that can be compiled."""
        return ChatFormat.of(self.engine, self.found.gguf, self.found.folder)

    @cached_property
    def calls(self) -> CallForm:
        """How its template writes calls of tools."""
        return call_form(self.form)

    def close(self) -> None:
        """Free it; nobody uses it any more."""
        self.threads.shutdown(wait=True)
        self.engine.close()


__all__ = ["Loaded", "Settings"]
