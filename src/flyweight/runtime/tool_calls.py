"""Calls of tools in the words of a model's own chat template, and answers that hold to them.

How a model writes a call stands in its template, which writes the calls of earlier turns: a call
with made-up names is rendered, and what stands around them is the form. A template that knows no
calls gets a plain one, and a system message that tells it. A grammar keeps the arguments to the
tools' schemas, so that whatever is called can be called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flyweight.runtime.characters import begun
from flyweight.runtime.chat_format import ChatFormat
from flyweight.runtime.constraint import AS_DUMPS, Constraint, as_text
from flyweight.runtime.sandbox import TemplateFault

Message = Mapping[str, Any]
Choice = Literal["auto", "required"]
_NAMES = ("first_probe_name", "other_probe_name")
_ARGUMENTS = {"probe_key": "probe_value"}
_WRITTEN = re.compile(r'\{\s*"probe_key"\s*:\s*"probe_value"\s*\}')
_HELLO: Message = {"role": "user", "content": "hello"}
_SAID = "probe content"
# of schemas that leave it open: nothing but the arguments that a function names
_PARAMETERS = {"type": "object", "additionalProperties": False}
_TOLD = (
    "You can call these functions:\n{tools}\nTo call one, answer with nothing but "
    '{{"name": <its name>, "arguments": <an object with its arguments>}}.'
)


@dataclass(frozen=True)
class Call:
    """A call as the model wrote it; `arguments` is the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True)
class CallForm:
    """How calls are written: `before` NAME `between` ARGUMENTS [`joint` NAME ...] `after`.

    `tells`: the template lists the tools by itself; `native`: it writes calls by itself.
    """

    before: str = '{"name": "'
    between: str = '", "arguments": '
    joint: str = '}\n{"name": "'
    after: str = "}"
    tells: bool = False
    native: bool = False


def call_form(form: ChatFormat) -> CallForm:
    """The form that a chat template has for calls, or the plain one."""
    tool = {
        "type": "function",
        "function": {"name": _NAMES[0], "description": "", "parameters": {}},
    }
    try:
        tells = _NAMES[0] in form.text([_HELLO], [tool])
    except TemplateFault:
        tells = False
    try:
        begun = form.text([_HELLO])
        told = form.text([_HELLO, {"role": "assistant", "content": _SAID}], answering=False)
        one = form.text([_HELLO, _turn(*_NAMES[:1])], answering=False)
        two = form.text([_HELLO, _turn(*_NAMES)], answering=False)
    except TemplateFault:
        return CallForm(tells=tells)
    place, written = one.find(_NAMES[0]), _WRITTEN.search(one)
    first, second = _WRITTEN.search(two), two.find(_NAMES[1])
    if not (place >= 0 and written and first and second > first.end() and written.start() > place):
        return CallForm(tells=tells)
    shared = _common(begun, one[:place])
    if not form.visible(one[shared:place]):  # engines leave special tokens out: nothing would tell
        return CallForm(tells=tells)
    end_of_turn = told[told.find(_SAID) + len(_SAID) :]
    after = one[written.end() :]
    return CallForm(
        before=one[shared:place],
        between=one[place + len(_NAMES[0]) : written.start()],
        joint=two[first.end() : second],
        after=after.removesuffix(end_of_turn) if end_of_turn else after,
        tells=tells,
        native=True,
    )


def _turn(*names: str) -> Message:
    calls = [
        {"id": f"call0000{place}", "type": "function", "function": {"name": name} | _CALLED}
        for place, name in enumerate(names)
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


_CALLED = {"arguments": _ARGUMENTS}


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


class Tools:
    """The tools of one request, in a model's form. `tools` are functions in OpenAI's words."""

    def __init__(self, form: ChatFormat, how: CallForm, tools: Sequence[Mapping[str, Any]]) -> None:
        self.form, self.how, self.tools = form, how, list(tools)
        self.names = [tool["function"]["name"] for tool in tools]
        self._schemas = [
            _PARAMETERS | dict(tool["function"].get("parameters") or {}) for tool in tools
        ]
        self._start = form.visible(how.before)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation that knows of the tools."""
        if not self.how.native:
            messages = [_plain(message) for message in messages]
        if not self.how.tells:
            messages = _with_system(messages, self.tools)
        return self.form.prompt(messages, self.tools)

    def constraint(
        self, choice: Choice, *, parallel: bool, otherwise: Mapping[str, Any] | None = None
    ) -> Constraint:
        """The answers that may be: calls that hold to the schemas, or, with "auto", a text.

        `otherwise` is the JSON schema that such a text has to hold to. OptionError for a schema
        that is not understood.
        """
        how = self.how
        names = " | ".join(f"call_{place}" for place in range(len(self.tools)))
        more = f" ({self._literal(how.joint)} ({names}))*" if parallel else ""
        rules = [f"calls: {self._literal(how.before)} ({names}){more} {self._literal(how.after)}"]
        for place, tool in enumerate(self.tools):
            literal = self._literal(tool["function"]["name"] + how.between)
            rules.append(f"call_{place}: {literal} {_json(self._schemas[place])}")
        start = "calls"
        if choice == "auto" and otherwise is not None:
            start = "calls | said"
            rules.append(f"said: {_json(otherwise)}")
        elif choice == "auto" and self.form.pieces(how.before)[0][1]:
            start = "TEXT? calls?"  # no text holds a special token
            rules.append("TEXT: /(?s:.+)/")
        elif choice == "auto":  # what begins as a call does has to be one
            start = "calls | TEXT | "
            rules.append(f"TEXT: /[^{re.escape(self._start[0])}](?s:.*)/")
        return Constraint.lark("\n".join([f"start: {start}", *rules]))

    def _literal(self, text: str) -> str:
        """A text in Lark; special tokens in it by their ids."""
        parts = [
            " ".join(f"<[{i}]>" for i in self.form.encode(piece)) if special else as_text(piece)
            for piece, special in self.form.pieces(text)
        ]
        return " ".join(parts) or '""'

    def parse(self, text: str) -> tuple[str, list[Call]]:
        """What an answer says, and what it calls; `text` is without special tokens."""
        place = text.find(self._start)
        while place >= 0:
            calls = self._calls(text[place:])
            if calls:
                return text[:place], calls
            place = text.find(self._start, place + 1)
        return text, []

    def _calls(self, text: str) -> list[Call]:
        calls: list[Call] = []
        between, joint = self.form.visible(self.how.between), self.form.visible(self.how.joint)
        rest = text.removeprefix(self._start)
        while True:
            name = next((each for each in self.names if rest.startswith(each + between)), None)
            if name is None:
                return calls
            found = _object(rest[len(name + between) :])
            if found is None or not self._holds(name, found):
                return calls
            calls.append(Call(name, found))
            rest = rest[len(name + between) + len(found) :]
            if not joint or not rest.startswith(joint):
                return calls
            rest = rest[len(joint) :]

    def _holds(self, name: str, arguments: str) -> bool:
        """Whether a call's arguments are of its tool's schema: one in a free text may not be."""
        schema = Constraint.lark(f"start: {_json(self._schemas[self.names.index(name)])}")
        # in a free text it may be spaced in another way
        plain = json.dumps(json.loads(arguments), ensure_ascii=False)
        return any(schema.allows(each, whole=True) for each in (arguments, plain))

    def held_back(self, text: str) -> int:
        """How many characters at the end of a text may belong to a call, and are not yet said."""
        place = text.find(self._start)
        return len(text) - place if place >= 0 else begun(text, self._start)


def _plain(message: Message) -> Message:
    """A message for templates that know neither calls nor their results."""
    if message.get("tool_calls"):
        how = CallForm()
        calls = [
            how.before
            + call["function"]["name"]
            + how.between
            + call["function"]["arguments"]
            + "}"
            for call in message["tool_calls"]
        ]
        said = [message.get("content") or "", *calls]
        return {"role": "assistant", "content": "\n".join(filter(None, said))}
    if message["role"] == "tool":
        return {"role": "user", "content": f"Result: {message['content']}"}
    return message


def _with_system(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> Sequence[Message]:
    told = _TOLD.format(tools="\n".join(json.dumps(each["function"]) for each in tools))
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{told}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": told}, *messages]


def _object(text: str) -> str | None:
    """The JSON object that a text begins with, as it is written."""
    try:
        found, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return text[:end] if isinstance(found, dict) else None


def _json(schema: Mapping[str, Any]) -> str:
    told = {**schema, "x-guidance": AS_DUMPS}
    return f"%json {as_text(told)}"


__all__ = ["Call", "CallForm", "Tools", "call_form"]
