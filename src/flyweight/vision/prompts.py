"""Conversations with pictures as token ids, by the model's own chat template.

A picture stands before the words that it comes with, as one token. As in text alone, what people
write is never taken for a mark of the template, nor for a picture.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from flyweight.errors import OptionError
from flyweight.runtime.chat_format import ChatFormat
from flyweight.vision.language import IMAGE

# Put before a text model's template: content in parts, as transformers' processors give it, becomes
# the string that such a template takes for granted.
FLATTEN = (
    "{%- set flat = namespace(messages=[]) -%}"
    "{%- for message in messages -%}"
    "{%- if message['content'] is string or not message['content'] -%}"
    "{%- set flat.messages = flat.messages + [message] -%}"
    "{%- else -%}"
    "{%- set flat.content = '' -%}"
    "{%- for part in message['content'] -%}"
    "{%- set flat.content = flat.content + "
    "('" + IMAGE + "' if part['type'] == 'image' else part['text']) -%}"
    "{%- endfor -%}"
    "{%- set flat.messages = flat.messages + [dict(message, content=flat.content)] -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- set messages = flat.messages -%}"
)
PICTURE = {"type": "image"}


def with_picture(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with a picture before the words of the last one that a user says."""
    told = [dict(message) for message in messages]
    last = next((each for each in reversed(told) if each["role"] == "user"), None)
    if last is None:
        raise OptionError("nobody asks anything of the picture: give a message of the role user")
    last["content"] = [PICTURE, {"type": "text", "text": last["content"]}]
    return told


class VisionFormat(ChatFormat):
    """How a folder's tokenizer writes conversations; `image_id` stands for a picture."""

    def __init__(self, tokenizer: Any, image_id: int) -> None:
        self.image_id, self._tokenizer = image_id, tokenizer
        self._place = secrets.token_hex(16)  # nobody can write it by chance
        added = tokenizer.added_tokens_decoder.values()
        super().__init__(
            tokenizer.chat_template,
            self._encode,
            {name: str(token) for name, token in tokenizer.special_tokens_map.items()
             if not isinstance(token, list)},
            [token.content for token in added if token.special],
            [token.content for token in added if not token.special],
        )  # fmt: skip

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """The ids of a conversation, the assistant's turn begun; a picture is one of them."""
        flat = [{**each, "content": self._flat(each["content"])} for each in messages]
        return super().prompt(flat, tools)

    def _flat(self, content: Any) -> Any:
        """Content as one string: a picture is a text that nobody else knows."""
        if content is None or isinstance(content, str):
            return content
        return "".join(self._place if part == PICTURE else part["text"] for part in content)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for number, piece in enumerate(text.split(self._place)):
            ids += [self.image_id] if number else []
            ids += self._tokenizer(piece, add_special_tokens=False)["input_ids"]
        return ids


__all__ = ["FLATTEN", "PICTURE", "VisionFormat", "with_picture"]
