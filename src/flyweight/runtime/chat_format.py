"""Conversations as the token ids that a model was trained on: its own chat template, its tokenizer.

What people and programs write is never taken for the template's own marks: a special token that
stands in a message is split like any other text. Rendered and tokenised is what transformers'
`apply_chat_template` gives, without loading it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flyweight.errors import OptionError
from flyweight.runtime.engine import Engine
from flyweight.runtime.gguf_header import read_header
from flyweight.runtime.sandbox import Template

_PRIVATE = ("\ue3f1", "\ue3f2")  # of an alphabet that is nobody's; which ones, a text decides
_CONTROL = 3  # ggml's number of the type of special tokens
_NAMES = ("bos", "eos", "padding", "unknown", "separator", "mask")
_SHORT = {"padding": "pad", "unknown": "unk", "separator": "sep"}  # transformers' names


class ChatFormat:
    """A chat template with the tokens that it speaks of.

    `encode` gives the ids of a text, special tokens recognised, nothing put around it; `special`
    are transformers' names of tokens, such as `bos_token`; `marks` all tokens that are control.
    """

    def __init__(
        self,
        template: str,
        encode: Callable[[str], list[int]],
        special: Mapping[str, str],
        marks: Sequence[str],
    ) -> None:
        self.source, self.encode = template, encode
        self._template, self._special = Template(template), dict(special)
        longest_first = sorted(filter(None, marks), key=len, reverse=True)
        self._marks = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @classmethod
    def of(cls, engine: Engine, gguf: Path, folder: Path | None) -> ChatFormat:
        """The format of an open model; OptionError for one without a chat template."""
        header = read_header(gguf)
        keys = header.keys
        template = keys.get("tokenizer.chat_template")
        if not isinstance(template, str) or not template:
            raise OptionError(
                f"{folder or gguf} has no chat template: it cannot chat, only go on with a text"
            )
        tokens = keys.get("tokenizer.ggml.tokens", [])
        types = keys.get("tokenizer.ggml.token_type", [])
        special = {
            f"{_SHORT.get(name, name)}_token": tokens[place]
            for name in _NAMES
            if (place := keys.get(f"tokenizer.ggml.{name}_token_id")) is not None
            and place < len(tokens)
        }
        marks = [token for token, kind in zip(tokens, types, strict=False) if kind == _CONTROL]
        return cls(template, encoder(engine, folder), special, marks)

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        answering: bool = True,
    ) -> str:
        """What the template makes of a conversation, with the assistant's turn begun.

        Raises TemplateFault where it refuses. Special tokens in messages are left as they are.
        """
        values = {
            "messages": [_with_arguments(message) for message in messages],
            "tools": list(tools) if tools else None,
            "documents": None,
            "add_generation_prompt": answering,
        }
        return self._template.render(self._special | values)

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """The ids of a conversation; special tokens in messages and tools are plain text there."""
        mark = _unused(json.dumps([messages, tools], ensure_ascii=False, default=str))
        safe = self._split(messages, mark)
        text = self.text(safe, self._split(tools, mark) if tools else None)
        return [i for piece in text.split(mark) for i in self.encode(piece)]

    def pieces(self, text: str) -> list[tuple[str, bool]]:
        """A text in pieces, with whether each is a special token."""
        found, place = [], 0
        for mark in self._marks.finditer(text):
            found += [(text[place : mark.start()], False), (mark[0], True)]
            place = mark.end()
        return [each for each in [*found, (text[place:], False)] if each[0]]

    def visible(self, text: str) -> str:
        """A text without special tokens: what engines give of it."""
        return self._marks.sub("", text)

    def _split(self, value: Any, mark: str) -> Any:
        """The value with `mark` after the first character of every special token in its texts."""
        if isinstance(value, str):
            return self._marks.sub(lambda found: f"{found[0][0]}{mark}{found[0][1:]}", value)
        if isinstance(value, Mapping):
            return {key: self._split(each, mark) for key, each in value.items()}
        if isinstance(value, Sequence):
            return [self._split(each, mark) for each in value]
        return value


def encoder(engine: Engine, folder: Path | None) -> Callable[[str], list[int]]:
    """Texts to ids, nothing put around them; by the folder's tokenizer.json where there is one."""
    file = folder / "tokenizer.json" if folder else None
    if file is None or not file.exists():
        return lambda text: engine.tokenize(text, add_special=False)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def _unused(text: str) -> str:
    """A mark that is nowhere in a text."""
    mark = "".join(_PRIVATE)
    while mark in text:
        mark += _PRIVATE[len(mark) % 2]
    return mark


def _with_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    """Tool calls as templates want them: arguments as an object, and not its JSON."""
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    return {**message, "tool_calls": [_parsed(call) for call in calls]}


def _parsed(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        with suppress(ValueError):  # else as it is: a model's own words
            function["arguments"] = json.loads(function["arguments"])
    return {**call, "function": function}


__all__ = ["ChatFormat", "encoder"]
