"""`/v1/chat/completions`: what is said of answers, whole or piece by piece, in OpenAI's words."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from flyweight.runtime.engine import Told
from flyweight.runtime.token_bytes import token_bytes
from flyweight.runtime.tool_calls import Call
from flyweight.serve.answering import Answer, collected, merged
from flyweight.serve.loaded import Loaded
from flyweight.serve.metering import joules_told
from flyweight.serve.prepare import Prepared
from flyweight.serve.wire import ChatRequest

DONE = b"data: [DONE]\n\n"


async def whole_chat(
    request: ChatRequest, loaded: Loaded, prepared: Prepared, answers: Sequence[Answer]
) -> dict[str, Any]:
    """The body of a response that is not streamed."""
    choices = []
    for place, (answer, whole) in enumerate(zip(answers, await collected(answers), strict=True)):
        said, calls = prepared.parse(whole.text)
        message: dict[str, Any] = {"role": "assistant", "content": said or (None if calls else "")}
        message["refusal"] = None
        if calls:
            message["tool_calls"] = [_call(each) for each in calls]
        choice = {
            "index": place,
            "message": message,
            "logprobs": _logprobs(request, loaded, whole.told),
            "finish_reason": _reason(answer, calls),
        }
        choices.append(choice)
    return head("chat.completion", "chatcmpl", loaded) | {
        "choices": choices,
        "usage": usage_of(answers),
    }


async def chat_events(
    request: ChatRequest, loaded: Loaded, prepared: Prepared, answers: Sequence[Answer]
) -> AsyncGenerator[bytes]:
    """The events of a response that is streamed."""
    common = head("chat.completion.chunk", "chatcmpl", loaded)
    wants_usage = bool(request.stream_options and request.stream_options.include_usage)
    if wants_usage:
        common["usage"] = None
    chunks = Chunks(common)
    for place in range(len(answers)):
        yield chunks.of(place, {"role": "assistant", "content": ""})
    splitters = [Splitter(prepared) for _ in answers]
    async for place, piece in merged(answers):
        splitter = splitters[place]
        if piece is not None:
            text = splitter.take(piece.text)
            if text or piece.told:
                logprobs = _logprobs(request, loaded, piece.told)
                yield chunks.of(place, {"content": text}, logprobs)
            continue
        rest, calls = splitter.end()
        if rest:
            yield chunks.of(place, {"content": rest})
        for number, call in enumerate(calls):
            yield chunks.of(place, {"tool_calls": [{"index": number, **_call(call)}]})
        yield chunks.of(place, {}, finish=_reason(answers[place], calls))
    if wants_usage:
        yield event(common | {"choices": [], "usage": usage_of(answers)})
    yield DONE


class Chunks:
    """Events that differ in one choice alone: what they share is written once."""

    def __init__(self, common: dict[str, Any]) -> None:
        self._start = b"data: " + json.dumps(common).encode()[:-1] + b', "choices": ['

    def of(
        self,
        place: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> bytes:
        """An event with one choice."""
        choice = {"index": place, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._start + json.dumps(choice).encode() + b"]}\n\n"


class Splitter:
    """The text of an answer as it comes, with what may be a call of a tool held back."""

    def __init__(self, prepared: Prepared) -> None:
        self._tools, self._prepared = prepared.tools, prepared
        self._text, self._given = "", 0

    def take(self, text: str) -> str:
        """More text; what of it is surely said."""
        if self._tools is None:
            return text
        self._text += text
        safe = len(self._text) - self._tools.held_back(self._text)
        said, self._given = self._text[self._given : safe], max(self._given, safe)
        return said

    def end(self) -> tuple[str, list[Call]]:
        """What was held back: text after all, and calls."""
        if self._tools is None:
            return "", []
        said, calls = self._prepared.parse(self._text)
        return said[self._given :], calls


def head(kind: str, prefix: str, loaded: Loaded) -> dict[str, Any]:
    """What all responses begin with."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": loaded.name,
        "system_fingerprint": f"fw_{loaded.found.sha256[:12]}",
    }


def event(body: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def usage_of(answers: Sequence[Answer]) -> dict[str, Any]:
    """The tokens of a request, and its joules: prompts that several answers share count once."""
    prompts = {id(answer.job.prompt): len(answer.job.prompt) for answer in answers}
    first = {id(answer.job.prompt): answer for answer in reversed(answers)}
    cached = sum(len(one.job.prompt) - one.said.prompt_tokens for one in first.values())
    written = sum(answer.said.written for answer in answers)
    read = sum(prompts.values())
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": max(0, cached)},
        "joules": joules_told([each.joules for each in answers if each.joules is not None]),
    }


def token_of(loaded: Loaded, token: int, log_probability: float) -> dict[str, Any]:
    """A token as `logprobs` has it."""
    raw = token_bytes(loaded.keys, token)
    text = raw.decode("utf-8", errors="replace")
    return {"token": text, "logprob": log_probability, "bytes": list(raw)}


def _logprobs(request: ChatRequest, loaded: Loaded, told: Sequence[Told]) -> dict[str, Any] | None:
    if not request.logprobs:
        return None
    wanted = request.top_logprobs or 0
    content = [
        token_of(loaded, each.id, each.log_probability)
        | {"top_logprobs": [token_of(loaded, *one) for one in each.top[:wanted]]}
        for each in told
    ]
    return {"content": content, "refusal": None}


def _call(call: Call) -> dict[str, Any]:
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _reason(answer: Answer, calls: Sequence[Call]) -> str:
    if not answer.said.stopped:
        return "length"
    return "tool_calls" if calls else "stop"


__all__ = ["DONE", "Chunks", "Splitter", "chat_events", "event", "head", "token_of", "usage_of",
           "whole_chat"]  # fmt: skip
