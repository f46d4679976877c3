"""From a request to what engines are asked: prompt, limits, constraint. Runs in a thread."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flyweight.errors import OptionError
from flyweight.runtime.constraint import Constraint
from flyweight.runtime.tool_calls import Call, Tools
from flyweight.serve.answering import Job
from flyweight.serve.faults import Fault
from flyweight.serve.loaded import Loaded
from flyweight.serve.wire import (
    AllowedChoice,
    AnyJson,
    ChatRequest,
    CompletionRequest,
    NamedTool,
    SchemaJson,
    Tool,
)

_ANY_OBJECT: dict[str, Any] = {"type": "object"}
_SEEDS = 2**32


@dataclass(frozen=True)
class Prepared:
    """The jobs of a request, all with the same prompt or one a prompt; `tools` where it has any."""

    jobs: list[Job]
    tools: Tools | None = None
    forced: bool = False  # the answer has to be a call

    def parse(self, text: str) -> tuple[str, list[Call]]:
        """What an answer says, and what it calls."""
        return self.tools.parse(text) if self.tools else (text, [])


def prepare_chat(request: ChatRequest, loaded: Loaded) -> Prepared:
    """What a chat request asks of an engine. Fault 400 for what the model cannot take."""
    messages = [message.plain() for message in request.messages]
    loaded.check_length("".join(map(str, messages)))
    image = _image(request, loaded)
    try:
        tools, forced = _tools(request, loaded)
        schema = _schema(request)
        form = loaded.form
        prompt = tools.prompt(messages) if tools else form.prompt(messages)
        constraint = None
        if tools:
            constraint = tools.constraint(
                "required" if forced else "auto",
                parallel=request.parallel_tool_calls is not False,
                otherwise=schema,
            )
        elif schema is not None:
            constraint = Constraint.json_schema(schema)
    except OptionError as error:
        raise Fault(400, str(error), code="invalid_value") from error
    limit = request.max_completion_tokens or request.max_tokens
    job = Job(
        prompt=prompt,
        max_tokens=_room(prompt, limit, loaded),
        stop=_stops(request.stop),
        top=(request.top_logprobs or 1) if request.logprobs else 0,
        temperature=request.temperature or 0.0,
        top_p=request.top_p or 1.0,
        constraint=constraint,
        image=image,
    )
    return Prepared(_seeded(job, request.n or 1, request.seed), tools, forced)


def _image(request: ChatRequest, loaded: Loaded) -> Any:
    """The picture of a conversation, None where it has none. Fault 400 for one that cannot be."""
    found = [url for message in request.messages for url in message.images]
    if not found:
        return None
    if len(found) > 1:
        raise Fault(
            400,
            f"The conversation has {len(found)} pictures, and it can be about one: send the one "
            "that is asked about.",
            param="messages",
        )
    return loaded.image(found[0])


def _tools(request: ChatRequest, loaded: Loaded) -> tuple[Tools | None, bool]:
    """The tools that may be called, and whether one has to be."""
    tools, choice = request.tools or [], request.tool_choice
    if not tools:
        if choice not in (None, "none", "auto"):
            raise Fault(400, "tool_choice without tools: give tools.", param="tool_choice")
        return None, False
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise Fault(400, "Two tools have the same name.", param="tools")
    if choice == "none":
        return None, False
    forced = choice == "required"
    if isinstance(choice, NamedTool):
        tools, forced = _named(tools, [choice.function.name]), True
    elif isinstance(choice, AllowedChoice):
        allowed = choice.allowed_tools
        tools = _named(tools, [each.function.name for each in allowed.tools])
        forced = allowed.mode == "required"
    told = [tool.model_dump(exclude={"function": {"strict"}}, exclude_none=True) for tool in tools]
    for tool in told:  # without parameters a function takes none
        tool["function"].setdefault("parameters", _ANY_OBJECT | {"properties": {}})
    return Tools(loaded.form, loaded.calls, told), forced


def _named(tools: Sequence[Tool], names: Sequence[str]) -> list[Tool]:
    by_name = {tool.function.name: tool for tool in tools}
    for name in names:
        if name not in by_name:
            raise Fault(400, f"tool_choice names no tool: {name!r}.", param="tool_choice")
    return [by_name[name] for name in dict.fromkeys(names)]


def _schema(request: ChatRequest) -> dict[str, Any] | None:
    wanted = request.response_format
    if isinstance(wanted, SchemaJson):
        return wanted.json_schema.schema_
    return _ANY_OBJECT if isinstance(wanted, AnyJson) else None


def prepare_completion(request: CompletionRequest, loaded: Loaded) -> Prepared:
    """What a completion request asks of an engine: its prompts in their order, `n` of each."""
    jobs: list[Job] = []
    for prompt in texts_of(request.prompt, loaded):
        job = Job(
            prompt=prompt,
            max_tokens=_room(prompt, request.max_tokens, loaded),
            stop=_stops(request.stop),
            top=0 if request.logprobs is None else max(1, request.logprobs),
            temperature=request.temperature or 0.0,
            top_p=request.top_p or 1.0,
        )
        jobs += _seeded(job, request.n or 1, request.seed)
    return Prepared(jobs)


def texts_of(given: str | Sequence[Any], loaded: Loaded) -> list[list[int]]:
    """The token ids of a text, of several, of ids, or of several of those."""
    if isinstance(given, str) or isinstance(given[0], int):
        given = [given]
    return [
        loaded.tokens(each) if isinstance(each, str) else _known(list(each), loaded)
        for each in given
    ]


def _known(ids: list[int], loaded: Loaded) -> list[int]:
    size = len(loaded.keys["tokenizer.ggml.tokens"])
    if max(ids) >= size:
        raise Fault(400, f"The model's tokens are 0 to {size - 1}.", param="prompt")
    return ids


def _room(prompt: Sequence[int], limit: int | None, loaded: Loaded) -> int:
    """How long the answer may be; Fault 400 where the context has no place for it."""
    context = loaded.engine.context
    left = context - len(prompt)
    if not prompt:
        raise Fault(400, "The prompt is empty.", param="prompt")
    if left < 1 or (limit or 1) > left:
        answer = f"an answer of {limit:,}" if limit else "an answer"
        raise Fault(
            400,
            f"The prompt has {len(prompt):,} tokens; with {answer} it does not fit the context of "
            f"{context:,}. Shorten it, or ask for less.",
            code="context_length_exceeded",
        )
    return limit or left


def _stops(stop: str | list[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else list(stop or [])


def _seeded(job: Job, answers: int, seed: int | None) -> list[Job]:
    """The job for each answer, with seeds that follow each other from the given one."""
    first = secrets.randbelow(_SEEDS) if seed is None else seed
    return [replace(job, seed=(first + place) % _SEEDS) for place in range(answers)]


__all__ = ["Prepared", "prepare_chat", "prepare_completion", "texts_of"]
