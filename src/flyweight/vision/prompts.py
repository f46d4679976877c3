"""Conversations with pictures as token ids, by the model's own chat template.

A picture stands before the words that it comes with, as one token. As in text alone, what people
write is never taken for a mark of the template, nor for a picture.
"""

from __future__ import annotations

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


def with_picture(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a conversation about a picture: it comes with the first that a user says."""
    told = [dict(message) for message in messages]
    first = next((each for each in told if each["role"] == "user"), None)
    if first is None:
        raise OptionError("nobody asks anything of the picture: give a message of the role user")
    first["content"] = [{"type": "image"}, {"type": "text", "text": first["content"]}]
    return told


def format_of(tokenizer: Any, name: str) -> ChatFormat:
    """How a folder's tokenizer writes conversations. OptionError where it has no chat template.

    A picture is written by the template, from content in parts; its mark in what people write is
    split like every other.
    """
    template = template_of(tokenizer)
    if not template:
        raise OptionError(
            f"{name} has no chat template: it cannot be asked of pictures, only go on with a text"
        )
    added = tokenizer.added_tokens_decoder.values()
    return ChatFormat(
        template,
        lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        {name: str(token) for name, token in tokenizer.special_tokens_map.items()
         if not isinstance(token, list)},
        [token.content for token in added if token.special],
        [token.content for token in added if not token.special],
    )  # fmt: skip


def template_of(tokenizer: Any) -> str | None:
    """A tokenizer's chat template, the usual one of several."""
    found = tokenizer.chat_template
    return found.get("default") if isinstance(found, Mapping) else found


__all__ = ["FLATTEN", "format_of", "template_of", "with_picture"]
