"""A task and its items, and what a record must say to become one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from flyweight.errors import TaskError

Message = dict[str, Any]
Record = dict[str, Any]

PROMPTS = ("prompt", "messages", "text")  # text: a synonym of prompt, for plain text
FIELDS = (*PROMPTS, "answer", "image", "slice", "group", "split")
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Item:
    """One thing that the model is asked, with the answer that is wanted."""

    messages: tuple[Message, ...]  # a chat; a plain prompt is one user message
    answer: str | None  # None: scored against the teacher's own answer
    slices: tuple[str, ...] = ()
    group: str = ""  # items that belong together: they share a split and are resampled together
    line: int = 0  # 1-based place in the file, for messages
    task: str = ""  # the name of its task, where there are several
    image: str | None = None  # the picture that it asks of: a path from the task's file on
    folder: str = ""  # of that file

    @property
    def asked_sha256(self) -> str:
        """A hex name for what the model is given, its picture by name."""
        return prompt_sha256(self.messages, self.image)

    @property
    def picture(self) -> Path:
        """Where the picture that it asks of lies."""
        return Path(self.folder, self.image or "")

    @property
    def last_text(self) -> str:
        """The text of the last message."""
        return str(self.messages[-1]["content"])

    def with_answer(self, answer: str) -> Item:
        """The same item, with this answer wanted."""
        return replace(self, answer=answer)


@dataclass(frozen=True)
class Task:
    """What a user wants done, in three parts that share no group."""

    name: str  # the file's stem
    train: tuple[Item, ...]
    dev: tuple[Item, ...]
    test: tuple[Item, ...]
    sha256: str  # of the file's bytes
    test_sha256: str  # of what test asks and wants: see `content_sha256`

    @property
    def system(self) -> str | None:
        """The system message that all items begin with, None where they have none or several."""
        first = {
            item.messages[0]["content"] if item.messages[0]["role"] == "system" else None
            for split in self.splits.values()
            for item in split
        }
        return first.pop() if len(first) == 1 else None

    @property
    def one_turn(self) -> bool:
        """Whether no item has an answer before the one that is asked for."""
        return not any(
            message["role"] == "assistant"
            for split in self.splits.values()
            for item in split
            for message in item.messages
        )

    @property
    def splits(self) -> dict[str, tuple[Item, ...]]:
        return {"train": self.train, "dev": self.dev, "test": self.test}


def prompt_sha256(messages: Sequence[Message], image: str | None = None) -> str:
    """A hex name for what the model is given; the order of a message's keys does not matter."""
    told = [*messages] if image is None else [*messages, image]
    return _sha256(json.dumps(told, ensure_ascii=False, sort_keys=True))


def content_sha256(items: Iterable[Item]) -> str:
    """A hex name for a set of prompts and answers, whatever order they stand in.

    Lines moved about, or other slices and groups, do not make an opened test a fresh one.
    """
    each = (_sha256(json.dumps([item.asked_sha256, item.answer])) for item in items)
    return _sha256("\n".join(sorted(each)))


def default_group(messages: Sequence[Message]) -> str:
    """The group of an item that names none: its prompt's own."""
    return prompt_sha256(messages)[:16]


def item_from(record: Record, line: int, place: str) -> Item:
    """The item that a record of the task file describes; TaskError at `place` where it does not.

    Null counts as absent, and fields that are not in `FIELDS` are ignored.
    """
    messages = _messages(record, place)
    image = record.get("image")
    if image is not None and not _text(image, "image", place).strip():
        fail(place, "image is empty", "Give the picture's path, or leave the field out")
    return Item(
        messages=messages,
        answer=_answer(record.get("answer"), place),
        slices=_slices(record.get("slice"), place),
        group=_group(record.get("group"), place) or image or default_group(messages),
        line=line,
        image=image,
    )


def conversation(value: Any, place: str) -> tuple[Message, ...]:
    """The messages of a chat, whoever speaks last; TaskError at `place` where it is none."""
    if not isinstance(value, list) or not value:
        fail(place, "messages must be a list of {role, content}", "Fix or remove the line")
    return tuple(_message(message, n, place) for n, message in enumerate(value, start=1))


def refuse_unanswered(items: Iterable[Item], file: Any, remedy: str) -> None:
    """TaskError that names the first item without an answer, and says what to do."""
    for item in items:
        if item.answer is None:
            fail(f"{file}, line {item.line}", "no answer", remedy)


def fail(place: str, what: str, remedy: str) -> NoReturn:
    """A TaskError in one line: where, what is wrong, what to do."""
    raise TaskError(f"{place}: {what}. {remedy}.")


def kind(value: Any) -> str:
    """What a value is, in a person's words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    kinds |= {int: "a number", float: "a number", type(None): "nothing"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def short(value: Any) -> str:
    """A value on one line, cut where a message would grow too long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def no_prompt(names: Iterable[Any]) -> str:
    """What is wrong with fields that ask nothing; the found ones are named, since one is near."""
    found = ", ".join(short(name) for name in list(names)[:8]) or "nothing"
    return f"neither prompt nor messages (found: {found})"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _messages(record: Record, place: str) -> tuple[Message, ...]:
    given = [name for name in PROMPTS if record.get(name) is not None]
    if not given:
        fail(place, no_prompt(record), "Give a prompt, or remove the line")
    if len(given) > 1:
        fail(place, f"both {given[0]} and {given[1]}", "Keep one of them")
    value = record[given[0]]
    if given[0] == "messages":
        return _chat(value, place)
    content = _text(value, given[0], place)
    if not content.strip():
        fail(place, f"{given[0]} is empty", "Fill it in, or remove the line")
    return ({"role": "user", "content": content},)


def _chat(value: Any, place: str) -> tuple[Message, ...]:
    messages = conversation(value, place)
    if messages[-1]["role"] == "assistant":
        fail(
            place,
            "the last message is the assistant's, so nothing is left to answer",
            "Move it to the field answer",
        )
    return messages


def _message(value: Any, number: int, place: str) -> Message:
    if not isinstance(value, dict):
        fail(place, f"message {number} is {kind(value)}", "Write it as {role, content}")
    role = value.get("role")
    if role not in ROLES:
        fail(
            place, f"message {number} has the role {short(role)}", f"Use one of {', '.join(ROLES)}"
        )
    _text(value.get("content"), f"the content of message {number}", place)
    # Chat templates read other keys too (name, tool_calls); Parquet fills absent ones with null.
    message = {key: part for key, part in value.items() if part is not None}
    _text(_json(message, f"message {number}", place), f"message {number}", place)
    return message


def _answer(value: Any, place: str) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else _json(value, "answer", place)
    return _text(text, "answer", place)


def _slices(value: Any, place: str) -> tuple[str, ...]:
    if value is None:
        return ()
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list):
        fail(place, f"slice is {kind(value)}", "Write a string or a list of strings")
    texts = [_text(name, "slice", place) for name in names]
    return tuple(dict.fromkeys(text for text in texts if text))


def _group(value: Any, place: str) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, "group", place)


def _json(value: Any, field: str, place: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):  # dates and bytes from Parquet, infinity
        fail(place, f"{field} holds what JSON cannot say", "Write it as text")


def _text(value: Any, field: str, place: str) -> str:
    """The value, if it is text that a tokenizer can take."""
    if not isinstance(value, str):
        fail(place, f"{field} must be text, not {kind(value)}", "Fix or remove the line")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can escape half of a pair
        fail(place, f"{field} holds half a surrogate pair", "Fix or remove the line")
    return value
