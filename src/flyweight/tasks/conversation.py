"""Chats as token ids, with the places of all that the assistant says in them.

A conversation is tokenised once, as a whole, so that its ids are the chat template's own: pieces
tokenised apart and joined may differ where they meet. The turns are then looked up in the text that
the template wrote, and in the tokens by where these stand in that text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from flyweight.errors import TaskError
from flyweight.tasks.encode import REFUSALS
from flyweight.tasks.items import Message, fail

Span = tuple[int, int]  # the first character, one after the last
MARK = "\ue3f1\ue3f2"  # of a private alphabet: in nobody's text


@dataclass(frozen=True)
class Conversation:
    """`ids` int32 [T], and which of them the assistant has to write, `said` bool [T]."""

    ids: np.ndarray
    said: np.ndarray


def encode_chat(tokenizer: Any, messages: Sequence[Message], place: str) -> Conversation:
    """A whole chat: all turns of the assistant are `said`, with the tokens that end them.

    Without a chat template the messages follow each other as plain text, and the end token follows
    the last if it is the assistant's. TaskError at `place` where the template refuses the chat, or
    hides what the assistant says.
    """
    if not tokenizer.is_fast:
        raise TaskError(
            "chats need a tokenizer that tells where its tokens stand in the text. "
            "Add a tokenizer.json to the teacher's folder, or give a corpus of plain text."
        )
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not tokenizer.chat_template:
        return _plain(tokenizer, messages, turns)
    text = _render(tokenizer, messages, place)
    spans = [_span(tokenizer, messages, turn, text, place) for turn in turns]
    return _located(tokenizer, text, spans, add_special_tokens=False)


def _plain(tokenizer: Any, messages: Sequence[Message], turns: Sequence[int]) -> Conversation:
    contents = [message["content"] for message in messages]
    starts = np.cumsum([0, *map(len, contents)]).tolist()
    spans = [(starts[turn], starts[turn + 1]) for turn in turns]
    found = _located(tokenizer, "".join(contents), spans, add_special_tokens=True)
    end = tokenizer.eos_token_id
    if end is None or len(messages) - 1 not in turns or found.ids[-1:].tolist() == [end]:
        return found
    return Conversation(np.append(found.ids, np.int32(end)), np.append(found.said, True))


def _located(
    tokenizer: Any, text: str, spans: Sequence[Span], *, add_special_tokens: bool
) -> Conversation:
    """The tokens of a text; `said` are those within the spans, and a special one right behind."""
    told = tokenizer(text, add_special_tokens=add_special_tokens, return_offsets_mapping=True)
    ids = np.array(told["input_ids"], dtype=np.int32)
    starts, ends = np.array(told["offset_mapping"]).reshape(-1, 2).T  # [T], in characters
    said = np.zeros(len(ids), dtype=bool)
    special = _added(tokenizer)
    for first, end in spans:
        inside = np.flatnonzero((ends > first) & (starts < end) & (ends > starts))
        said[inside] = True
        behind = int(np.searchsorted(starts, end)) if not len(inside) else int(inside[-1]) + 1
        if behind < len(ids) and int(ids[behind]) in special.values():
            said[behind] = True
    return Conversation(ids, said)


def _span(tokenizer: Any, messages: Sequence[Message], turn: int, text: str, place: str) -> Span:
    """Where in the chat's `text` the assistant's turn stands, without what the template adds.

    From the end of what stands before it when it is to be written, to the end of what stands there
    when it is written, as far as these begin the text. Templates that write a last turn otherwise
    than an earlier one (Qwen3's leaves out old thoughts) are asked where a mark in the content's
    place comes out.
    """
    before = _render(tokenizer, messages[:turn], place, ask=True) if turn else ""
    behind = _render(tokenizer, messages[: turn + 1], place)
    if before and text.startswith(before) and text.startswith(behind):
        written = text[len(before) : len(behind)]
        if messages[turn]["content"].strip() in written:
            return len(before), len(before) + len(_unended(tokenizer, written))
    marked = _render(tokenizer, _marked(messages, turn), place)
    first, end = _common(text, marked), len(text) - _common(text[::-1], marked[::-1])
    if MARK not in marked or first > end:
        remedy = "Remove the document, or the turn"
        fail(f"{place}, message {turn + 1}", "the chat template leaves the answer out", remedy)
    return first, end


def _unended(tokenizer: Any, turn: str) -> str:
    """A turn without the special token that ends it, and the blanks that a template adds there."""
    bare = turn.rstrip()
    ending = [token for token in _added(tokenizer) if bare.endswith(token)]
    return bare[: -len(max(ending, key=len))] if ending else turn


@lru_cache(maxsize=4)
def _added(tokenizer: Any) -> dict[str, int]:
    """The special and other added tokens: it takes long to ask for each chat anew."""
    special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    return {**tokenizer.get_added_vocab(), **dict(special)}


def _marked(messages: Sequence[Message], turn: int) -> list[Message]:
    """The messages with MARK for the content of one."""
    return [
        {**message, "content": MARK} if place == turn else message
        for place, message in enumerate(messages)
    ]


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with together."""
    shortest = min(len(one), len(other))
    low, high = 0, shortest  # bisection on slices is faster than a loop over characters
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _render(tokenizer: Any, messages: Sequence[Message], place: str, *, ask: bool = False) -> str:
    try:
        return tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=ask, tokenize=False
        )
    except REFUSALS as error:
        what = f"the teacher's chat template refuses it ({error})"
        fail(place, what, "Change roles, order or fields")


__all__ = ["Conversation", "encode_chat"]
