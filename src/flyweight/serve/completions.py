"""`/v1/completions` and `/v1/embeddings`: texts gone on with, and texts as vectors."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import numpy as np

from flyweight.errors import FlyweightError
from flyweight.runtime.engine import Told
from flyweight.serve.answering import Answer, collected, merged
from flyweight.serve.chat import DONE, event, head, token_of, usage_of
from flyweight.serve.faults import Fault
from flyweight.serve.loaded import Loaded
from flyweight.serve.prepare import texts_of
from flyweight.serve.wire import CompletionRequest, EmbeddingRequest


async def whole_completion(
    request: CompletionRequest, loaded: Loaded, answers: Sequence[Answer]
) -> dict[str, Any]:
    """The body of a response that is not streamed."""
    wholes = await collected(answers)
    choices = [
        _choice(place, whole.text, _logprobs(request, loaded, whole.told, 0), _reason(answer))
        for place, (answer, whole) in enumerate(zip(answers, wholes, strict=True))
    ]
    return head("text_completion", "cmpl", loaded) | {
        "choices": choices,
        "usage": usage_of(answers),
    }


async def completion_events(
    request: CompletionRequest, loaded: Loaded, answers: Sequence[Answer]
) -> AsyncGenerator[bytes]:
    """The events of a response that is streamed."""
    common = head("text_completion", "cmpl", loaded)
    wants_usage = bool(request.stream_options and request.stream_options.include_usage)
    if wants_usage:
        common["usage"] = None
    lengths = [0] * len(answers)
    yield b": begun\n\n"  # a comment: the answer is being written
    async for place, piece in merged(answers):
        if piece is None:
            yield event(common | {"choices": [_choice(place, "", None, _reason(answers[place]))]})
            continue
        logprobs = _logprobs(request, loaded, piece.told, lengths[place])
        lengths[place] += len(piece.text)
        yield event(common | {"choices": [_choice(place, piece.text, logprobs, None)]})
    if wants_usage:
        yield event(common | {"choices": [], "usage": usage_of(answers)})
    yield DONE


def _choice(
    place: int, text: str, logprobs: dict[str, Any] | None, finish: str | None
) -> dict[str, Any]:
    return {"index": place, "text": text, "logprobs": logprobs, "finish_reason": finish}


def _reason(answer: Answer) -> str:
    return "stop" if answer.said.stopped else "length"


def _logprobs(
    request: CompletionRequest, loaded: Loaded, told: Sequence[Told], offset: int
) -> dict[str, Any] | None:
    """As the older interface has them: a list for each kind of thing."""
    if request.logprobs is None:
        return None
    tokens = [token_of(loaded, each.id, each.log_probability) for each in told]
    best = [[token_of(loaded, *one) for one in each.top[: request.logprobs]] for each in told]
    lengths = [len(token["token"]) for token in tokens]
    return {
        "tokens": [token["token"] for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [{one["token"]: one["logprob"] for one in each} for each in best],
        "text_offset": [offset + sum(lengths[:place]) for place in range(len(tokens))],
    }


async def embeddings(
    request: EmbeddingRequest, loaded: Loaded, embed: Callable[[Sequence[int]], np.ndarray]
) -> dict[str, Any]:
    """A vector of length 1 for each text, by `embed`: the mean of its last hidden states."""
    texts = await asyncio.to_thread(texts_of, request.input, loaded)
    for place, ids in enumerate(texts):
        if not 0 < len(ids) < loaded.engine.context:
            raise Fault(
                400,
                f"Text {place} has {len(ids):,} tokens: give at least one, and fewer than "
                f"{loaded.engine.context:,}.",
                param="input",
            )
    loop, vectors = asyncio.get_running_loop(), []
    for ids in texts:
        since = await loaded.line.enter()
        work = loop.run_in_executor(loaded.threads, embed, ids)
        work.add_done_callback(lambda _, since=since: loaded.line.leave(since))
        try:
            vectors.append(await asyncio.shield(work))
        except FlyweightError as error:
            raise Fault(500, f"The engine failed: {error}", code="engine_failed") from error
    read = sum(map(len, texts))
    return {
        "object": "list",
        "model": loaded.name,
        "data": [
            {"object": "embedding", "index": place, "embedding": _encoded(vector, request)}
            for place, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": read, "total_tokens": read},
    }


def _encoded(vector: np.ndarray, request: EmbeddingRequest) -> list[float] | str:
    if request.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()


__all__ = ["completion_events", "embeddings", "whole_completion"]
