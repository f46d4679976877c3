"""Ways in which a teacher can be brought to write a new prompt of a task, from a few known ones.

Which one works depends on what the teacher was trained on: a model that follows instructions can be
asked, a base model goes on where a list or a text ends, one that only ever met its own task may
know how its prompts begin, and one that was trained on answers alone must first be taught.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flyweight.tasks.encode import prompt_ids
from flyweight.tasks.items import Item, default_group

EXAMPLES = 5  # prompts that are shown
MARK = "\ue000"  # stands for the text of the last message; a letter that nobody uses
KEPT = (0.2, 0.8)  # of a prompt's words, before the teacher goes on

ASKED = (
    "Here are messages that a system receives, as a JSON list:\n{listed}\n"
    "Write one more message that it could receive: of the same kind and form, but about something "
    "else. Answer with that message alone, as one JSON string."
)


@dataclass(frozen=True)
class Draw:
    """What the engine is given, and how the new prompt is read from what it writes.

    `read` gives None where no whole prompt is in it.
    """

    seed_item: Item  # lends the new item all but the text of its last message
    ids: list[int]
    stop_ids: tuple[int, ...]
    read: Callable[[str, bool], str | None]  # of what is written, and whether it ended by itself


class Drawer:
    """Makes draws from the prompts of `seeds`."""

    def __init__(self, tokenizer: Any, seeds: Sequence[Item]) -> None:
        self.tokenizer, self.seeds = tokenizer, list(seeds)
        texts = [item.last_text for item in seeds]
        self.begin, self.end = "", ""
        if not tokenizer.chat_template:  # what all prompts begin and end with is no news
            self.begin = _whole_words(_common(texts))
            self.end = _common([text[::-1] for text in texts])[::-1]
            if len(set(texts)) == 1:
                self.begin, self.end = "", ""
        self.lines = any("\n" in text.removesuffix(self.end) for text in texts)

    def draw(self, way: str, rng: random.Random) -> Draw | None:
        """A draw; None where this way is not open to such a teacher."""
        item = rng.choice(self.seeds)
        if way in ("own", "taught"):
            return self._go_on(item, self.begin)
        if way == "continued":
            text = item.last_text.removesuffix(self.end)
            places = [found.end() for found in re.finditer(r"\S+", text)]
            if not places:  # all that there is, all prompts end with
                return self._go_on(item, self.begin)
            return self._go_on(item, text[: places[int(len(places) * rng.uniform(*KEPT))]])
        return self._from_list(item, rng)

    def frame(self, item: Item) -> tuple[str, str]:
        """What stands before and after the last message's text, as the teacher reads it."""
        if not self.tokenizer.chat_template:
            before = "".join(str(each["content"]) for each in item.messages[:-1])
            return before, self.end
        messages = [*item.messages[:-1], {**item.messages[-1], "content": MARK}]
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        before, _, after = text.partition(MARK)
        return before, after

    def ids(self, text: str) -> list[int]:
        """Token ids of a beginning; a template writes the special tokens itself."""
        special = not self.tokenizer.chat_template
        return self.tokenizer(text, add_special_tokens=special)["input_ids"]

    def stop_ids(self, after: str) -> tuple[int, ...]:
        """The special token with which a message ends, if there is one."""
        if not (self.tokenizer.chat_template and after):
            return ()
        first = self.tokenizer(after, add_special_tokens=False)["input_ids"][:1]
        return tuple(i for i in first if i in self.tokenizer.all_special_ids or _added(self, i))

    def _go_on(self, item: Item, given: str) -> Draw | None:
        before, after = self.frame(item)
        ids = self.ids(before + given)
        if not ids:
            return None  # an engine needs something to begin with

        def read(said: str, ended: bool) -> str | None:
            if not self.tokenizer.chat_template:
                return self._plain(given, said, ended)
            return given + said if ended else None

        return Draw(item, ids, self.stop_ids(after), read)

    def _plain(self, given: str, said: str, ended: bool) -> str | None:
        """A prompt that no template ends: by what all prompts end with, else by its line."""
        text = given + said
        if self.end:
            place = text.find(self.end, len(given))
            return None if place < 0 else text[: place + len(self.end)]
        if not self.lines and "\n" in said:
            return text.split("\n", 1)[0]
        return text if ended else None

    def _from_list(self, item: Item, rng: random.Random) -> Draw:
        shown = rng.sample(self.seeds, min(EXAMPLES, len(self.seeds)))
        listed = json.dumps([each.last_text for each in shown], ensure_ascii=False)
        if self.tokenizer.chat_template:
            messages = [{"role": "user", "content": ASKED.format(listed=listed)}]
            return Draw(item, prompt_ids(self.tokenizer, messages), (), _json_string)
        return Draw(item, self.ids(listed[:-1] + ","), (), _json_string)


def with_text(item: Item, text: str) -> Item:
    """A new item like this one, whose `line` it keeps, with another last message and no answer."""
    messages = (*item.messages[:-1], {**item.messages[-1], "content": text})
    return replace(item, messages=messages, answer=None, slices=(), group=default_group(messages))


def _added(drawer: Drawer, token: int) -> bool:
    return token in drawer.tokenizer.added_tokens_decoder


def _common(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    first, last = min(texts), max(texts)  # of a sorted list the ends differ most
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return first if same is None else first[:same]


def _whole_words(text: str) -> str:
    return text[: text.rfind(" ") + 1].rstrip()


def _json_string(said: str, ended: bool) -> str | None:
    """The first JSON string in what was said; a list that holds it may stand around it.

    None too where it is no text: JSON can escape half of a surrogate pair.
    """
    start = said.find('"')
    if start < 0:
        return None
    try:
        text, _ = json.JSONDecoder().raw_decode(said[start:])
        text.encode()
    except ValueError:
        return None
    return text
