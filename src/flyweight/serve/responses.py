"""`/v1/responses`: the newer of OpenAI's two ways to say the same, as items and as typed events."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from flyweight.runtime.tool_calls import Call
from flyweight.serve.answering import Answer, collected, merged
from flyweight.serve.chat import Splitter, usage_of
from flyweight.serve.loaded import Loaded
from flyweight.serve.prepare import Prepared
from flyweight.serve.responses_wire import ResponsesRequest


async def whole_response(
    request: ResponsesRequest, loaded: Loaded, prepared: Prepared, answers: Sequence[Answer]
) -> dict[str, Any]:
    """The body of a response that is not streamed."""
    [answer] = await collected(answers)
    said, calls = prepared.parse(answer.text)
    whole = answers[0].said.stopped
    items = [_message(_id("msg"), said, whole)] if said or not calls else []
    items += [_call(_id("fc"), each) for each in calls]
    return _finished(_begun(request, loaded), items, answers[0])


class _Events:
    """Typed events, numbered."""

    def __init__(self) -> None:
        self._number = -1

    def of(self, kind: str, **fields: Any) -> bytes:
        """One event."""
        self._number += 1
        body = {"type": kind, "sequence_number": self._number, **fields}
        return f"event: {kind}\ndata: {json.dumps(body)}\n\n".encode()


async def response_events(
    request: ResponsesRequest, loaded: Loaded, prepared: Prepared, answers: Sequence[Answer]
) -> AsyncGenerator[bytes]:
    """The events of a response that is streamed."""
    events, response = _Events(), _begun(request, loaded)
    yield events.of("response.created", response=response)
    yield events.of("response.in_progress", response=response)
    splitter, text, message = Splitter(prepared), "", _id("msg")
    place = {"item_id": message, "output_index": 0, "content_index": 0}
    items: list[dict[str, Any]] = []
    rest: str = ""
    calls: list[Call] = []
    begun = False
    async for _, piece in merged(answers):
        if piece is None:
            rest, calls = splitter.end()
        said = rest if piece is None else splitter.take(piece.text)
        if not begun and (said or (piece is None and not calls)):
            begun = True
            yield events.of("response.output_item.added", output_index=0, item=_empty(message))
            yield events.of("response.content_part.added", **place, part=_part(""))
        if said:
            text += said
            yield events.of("response.output_text.delta", **place, delta=said, logprobs=[])
    if begun:
        items.append(_message(message, text, answers[0].said.stopped))
        yield events.of("response.output_text.done", **place, text=text, logprobs=[])
        yield events.of("response.content_part.done", **place, part=_part(text))
        yield events.of("response.output_item.done", output_index=0, item=items[0])
    for call in calls:
        item, index = _call(_id("fc"), call), len(items)
        at = {"item_id": item["id"], "output_index": index}
        begin = item | {"arguments": "", "status": "in_progress"}
        yield events.of("response.output_item.added", output_index=index, item=begin)
        yield events.of("response.function_call_arguments.delta", **at, delta=call.arguments)
        yield events.of(
            "response.function_call_arguments.done",
            **at,
            name=call.name,
            arguments=call.arguments,
        )
        yield events.of("response.output_item.done", output_index=index, item=item)
        items.append(item)
    whole = _finished(response, items, answers[0])
    kind = "completed" if whole["status"] == "completed" else "incomplete"
    yield events.of(f"response.{kind}", response=whole)


def _begun(request: ResponsesRequest, loaded: Loaded) -> dict[str, Any]:
    """A response with nothing in it yet."""
    given = request.model_dump(mode="json", by_alias=True)
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "model": loaded.name,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "store": False,
        "temperature": request.temperature or 0.0,
        "text": given["text"] or {"format": {"type": "text"}},
        "tool_choice": given["tool_choice"] or "auto",
        "tools": given["tools"] or [],
        "top_p": request.top_p or 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
    }


def _finished(
    response: dict[str, Any], items: list[dict[str, Any]], answer: Answer
) -> dict[str, Any]:
    usage = usage_of([answer])
    whole = answer.said.stopped
    return response | {
        "status": "completed" if whole else "incomplete",
        "incomplete_details": None if whole else {"reason": "max_output_tokens"},
        "output": items,
        "usage": {
            "joules": usage["joules"],
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": usage["prompt_tokens_details"] | {"cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message(name: str, text: str, whole: bool) -> dict[str, Any]:
    status = "completed" if whole else "incomplete"
    return _empty(name) | {"status": status, "content": [_part(text)]}


def _empty(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }


def _call(name: str, call: Call) -> dict[str, Any]:
    return {
        "id": name,
        "type": "function_call",
        "call_id": f"call_{secrets.token_hex(12)}",
        "name": call.name,
        "arguments": call.arguments,
        "status": "completed",
    }


__all__ = ["response_events", "whole_response"]
