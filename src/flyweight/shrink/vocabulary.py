"""Which rows of the vocabulary stay: those that the data use, and those that they are made from.

Rows without a token (padding at the end of many embeddings) always go. The number that stays is not
rounded: rows are quantised along the hidden channels, so that any number of them fits.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jinja2 import Environment, TemplateError, nodes
from torch import Tensor

from flyweight.errors import OptionError, TeacherError
from flyweight.shrink.subwords import Subwords, subwords_of
from flyweight.shrink.token_ids import processor_ids

BYTES_AT_16_BITS = 2
GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # transformers' own tags


@dataclass(frozen=True)
class Vocabulary:
    """What stays of a teacher's vocabulary: old ids in ascending order; a new id is the place."""

    keep: Tensor  # int64 [V]
    rows: int  # of the teacher's embedding
    always: int  # of those kept, how many stay whatever the data say

    def __len__(self) -> int:
        return len(self.keep)

    def saved_bytes(self, hidden: int, *, tied: bool) -> int:
        """What goes, at 16 bits: a row of the input embedding, and of the output unless `tied`.

        A model without an output embedding (a classifier) counts as tied.
        """
        return (self.rows - len(self)) * hidden * BYTES_AT_16_BITS * (1 if tied else 2)

    def __str__(self) -> str:
        return f"{len(self):,} of {self.rows:,} tokens stay ({self.always:,} of them always)"


def plan_vocabulary(
    tokenizer: Any,
    used: Mapping[int, int] | Iterable[Sequence[int]],
    *,
    rows: int | None = None,
    named: Collection[int] = (),
    least: int = 1,
    most: int | None = None,
) -> Vocabulary:
    """What stays for data that use these tokens: with them, all that they are made from.

    Any text can still be encoded, and one whose tokens all stay is split into the same tokens
    (shrink/subwords.py says why). Always there: bytes or characters, special and added tokens, what
    the chat template and the post-processor write.

    Args:
        tokenizer: a fast tokenizer of transformers.
        used: how often each id is used, or the sequences of ids themselves.
        rows: of the embedding, where it has others than the tokenizer has tokens.
        named: ids that the configs name (`token_ids.named_ids`).
        least: tokens used less often go.
        most: rows at the most; the most used tokens stay.

    Raises TeacherError for a tokenizer that cannot be cut; OptionError where `used` or `named`
    holds an id that the teacher does not have, or `most` leaves no room for what always stays.
    """
    described = describe(tokenizer)
    subwords = subwords_of(described)
    known = set(tokenizer.get_vocab().values())
    size = max(known) + 1 if rows is None else rows
    counts = count_tokens(used)
    _refuse_strangers(counts, {i for i in known if i < size}, "the data hold")
    _refuse_strangers(named, range(size), "the config names")
    always = _always(tokenizer, described, subwords, size) | set(named)
    kept = _with_needs(always, subwords)
    if most is not None and most < len(kept):
        raise OptionError(f"{most} rows at the most: {len(kept)} always stay. Give at least those.")
    room = len(known) + len(named) if most is None else most
    start = len(kept)
    for token, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count >= least and token not in kept:
            missing = subwords.needs(token) - kept
            if len(kept) + len(missing) <= room:
                kept |= missing
    return Vocabulary(torch.tensor(sorted(kept), dtype=torch.int64), size, start)


def count_tokens(used: Mapping[int, int] | Iterable[Sequence[int]]) -> Counter[int]:
    """How often each id is used, from sequences of ids or such counts themselves."""
    if isinstance(used, Mapping):
        counts = cast("Mapping[int, int]", used)
        return Counter({int(i): count for i, count in counts.items() if count > 0})
    return Counter(int(i) for sequence in used for i in sequence)


def describe(tokenizer: Any) -> dict[str, Any]:
    """What tokenizer.json says of a fast tokenizer; TeacherError for another."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise TeacherError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so its vocabulary cannot be cut. "
            "Add a tokenizer.json to the teacher, or leave the vocabulary whole."
        )
    return json.loads(backend.to_str())


def must_stay(described: Mapping[str, Any], size: int) -> set[int]:
    """Ids below `size` that a tokenizer.json cannot go without.

    An added token without a row (Gemma 3's picture token in a text model) cannot be used anyway.
    """
    stays = subwords_of(described).always() | processor_ids(described["post_processor"])
    stays |= {added["id"] for added in described["added_tokens"]}
    if described["padding"] is not None:
        stays.add(described["padding"]["pad_id"])
    return {i for i in stays if i < size}


def template_texts(template: str) -> list[str]:
    """The texts that a chat template may write: role names, instructions for tools.

    None of a template that only transformers can read: what it wrote into the data is in the data.
    """
    try:
        plain = GENERATION.sub("", template)
        tree = Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False).parse(plain)
    except TemplateError:
        return []
    texts = [data.data for data in tree.find_all(nodes.TemplateData)]
    texts += [const.value for const in tree.find_all(nodes.Const) if isinstance(const.value, str)]
    return [text for text in texts if text]


def _always(
    tokenizer: Any, described: Mapping[str, Any], subwords: Subwords, size: int
) -> set[int]:
    stays = must_stay(described, size)
    templates = tokenizer.chat_template or {}
    for template in [templates] if isinstance(templates, str) else templates.values():
        for text in template_texts(template):
            stays |= set(tokenizer(text, add_special_tokens=False)["input_ids"])
    return {i for i in stays if i < size}


def _with_needs(tokens: Iterable[int], subwords: Subwords) -> set[int]:
    return {each for token in tokens for each in subwords.needs(token)}


def _refuse_strangers(ids: Iterable[int], known: Collection[int], who: str) -> None:
    strange = next((i for i in ids if i not in known), None)
    if strange is not None:
        raise OptionError(
            f"{who} token {strange}, which the teacher does not have. Use the teacher's own "
            "tokenizer and config."
        )
