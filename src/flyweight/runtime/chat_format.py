"""Conversations as the token ids that a model was trained on: its own chat template, its tokenizer.

What people and programs write is never taken for the template's own marks: a special token that
stands in a message is split like any other text. Rendered and tokenised is what transformers'
`apply_chat_template` gives, without loading it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flyweight.errors import EngineError, OptionError
from flyweight.runtime.engine import Engine
from flyweight.runtime.gguf_header import read_header
from flyweight.runtime.gguf_tokens import GgufTokens
from flyweight.runtime.sandbox import Template

_PRIVATE, _LETTERS = 0xE000, 6400  # an alphabet that is nobody's
_CONTROL, _ADDED = 3, 4  # ggml's numbers of types of tokens
_PIECE = 4000  # characters that llama.cpp splits at a time
_NAMES = ("bos", "eos", "padding", "unknown", "separator", "mask")
_SHORT = {"padding": "pad", "unknown": "unk", "separator": "sep"}  # transformers' names


class ChatFormat:
    """A chat template with the tokens that it speaks of.

    `encode` gives the ids of a text, special tokens recognised, nothing put around it; `special`
    are transformers' names of tokens, such as `bos_token`; `marks` all tokens that are control, and
    `added` those that are not, and yet no part of words (`<think>`).
    """

    def __init__(
        self,
        template: str,
        encode: Callable[[str], list[int]],
        special: Mapping[str, str],
        marks: Sequence[str],
        added: Sequence[str] = (),
    ) -> None:
        self.source, self.encode = template, encode
        self._template, self._special = Template(template), dict(special)
        self._marks = _any_of(marks)
        self._named = _any_of([*marks, *(each for each in added if each in template)])

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
        added = [token for token, kind in zip(tokens, types, strict=False) if kind == _ADDED]
        return cls(template, encoder(engine, gguf, folder), special, marks, added)

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
        messages = [_with_arguments(message) for message in messages]
        mark = _unused(json.dumps([messages, tools], ensure_ascii=False, default=str))
        safe = [self._split(each, mark, each.get("role") != "assistant") for each in messages]
        text = self.text(safe, self._split(tools, mark, True) if tools else None)
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

    def _split(self, value: Any, mark: str, foreign: bool) -> Any:
        """The value with `mark` after the first character of every special token in its texts.

        `foreign`: of what the model did not say the tokens that the template names are split, too.
        """
        if isinstance(value, str):
            marks = self._named if foreign else self._marks
            return marks.sub(lambda found: f"{found[0][0]}{mark}{found[0][1:]}", value)
        if isinstance(value, Mapping):
            return {
                self._split(key, mark, foreign): self._split(each, mark, foreign)
                for key, each in value.items()
            }
        if isinstance(value, Sequence):
            return [self._split(each, mark, foreign) for each in value]
        return value


def encoder(engine: Engine, gguf: Path, folder: Path | None) -> Callable[[str], list[int]]:
    """Texts to ids, nothing put around them; in this process wherever the tokenizer is known.

    llama.cpp splits words by a regular expression that recurses for each character in tokenizers
    that it has no other way for, and dies of long ones: it is given pieces, cut before spaces.
    """
    file = folder / "tokenizer.json" if folder else None
    if file is not None and file.exists():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    header = read_header(gguf)
    try:
        tokens = GgufTokens(header)
    except EngineError:
        whole = header.keys.get("tokenizer.ggml.model") != "gpt2"
        return lambda text: [
            i
            for piece in ([text] if whole else _cut(text))
            for i in engine.tokenize(piece, add_special=False)
        ]
    return lambda text: tokens.encode(text, add_special=False)


def _cut(text: str) -> list[str]:
    """A text in pieces of some thousand characters at most, cut before spaces where there are."""
    pieces = []
    while len(text) > _PIECE:
        place = max(text.rfind(" ", 1, _PIECE), text.rfind("\n", 1, _PIECE))
        place = place if place > 0 else _PIECE
        pieces.append(text[:place])
        text = text[place:]
    return [*pieces, text]


def _any_of(tokens: Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _unused(text: str) -> str:
    """A mark that is nowhere in a text."""
    while True:
        mark = "".join(chr(_PRIVATE + secrets.randbelow(_LETTERS)) for _ in range(8))
        if mark not in text:
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
