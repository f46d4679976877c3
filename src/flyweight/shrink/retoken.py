"""A tokenizer with fewer tokens: the same in all else, loaded from its files as a user will."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from flyweight.errors import OptionError, TeacherError
from flyweight.shrink.subwords import subwords_of
from flyweight.shrink.token_ids import map_processor
from flyweight.shrink.vocabulary import describe, must_stay

STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model")


def rebuild_tokenizer(tokenizer: Any, keep: Tensor, *, rows: int | None = None) -> Any:
    """The tokenizer with the tokens of `keep` [V] alone, old ids in ascending order; new: places.

    Class, special and added tokens, chat template, normaliser, pre-tokenizer and decoder stay.
    Added tokens beyond the embedding's `rows` (all have one where None) stay beyond them. Raises
    OptionError where `keep` lacks what always stays, TeacherError where the files of the new
    tokenizer are read as something else.
    """
    described = describe(tokenizer)
    place = {old: new for new, old in enumerate(keep.tolist())}
    size = max(tokenizer.get_vocab().values()) + 1 if rows is None else rows
    _check_keep(keep, must_stay(described, size), size)
    wanted = cut_description(described, place)
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        text = json.dumps(wanted, ensure_ascii=False)
        (Path(folder) / "tokenizer.json").write_text(text, encoding="utf-8")
        rebuilt = type(tokenizer).from_pretrained(folder, local_files_only=True)
    rebuilt.name_or_path = tokenizer.name_or_path
    _check_rebuilt(tokenizer, rebuilt, wanted, place)
    return rebuilt


def cut_description(described: Mapping[str, Any], place: Mapping[int, int]) -> dict[str, Any]:
    """A tokenizer.json of the tokens that have a place, their new id."""
    cut = dict(described) | {"model": subwords_of(described).cut(place)}
    beyond = [added["id"] for added in described["added_tokens"] if added["id"] not in place]
    ids = {**place, **{old: len(place) + new for new, old in enumerate(sorted(beyond))}}
    cut["added_tokens"] = [added | {"id": ids[added["id"]]} for added in described["added_tokens"]]
    if described["post_processor"] is not None:
        cut["post_processor"] = map_processor(described["post_processor"], ids.__getitem__)
    if described["padding"] is not None:
        cut["padding"] = described["padding"] | {"pad_id": ids[described["padding"]["pad_id"]]}
    return cut


def _check_keep(keep: Tensor, stays: set[int], size: int) -> None:
    old = keep.tolist()
    if sorted(set(old)) != old or (old and not 0 <= old[0] <= old[-1] < size):
        raise OptionError(f"keep: give ids from 0 to {size - 1} in ascending order, each once.")
    missing = stays.difference(old)
    if missing:
        raise OptionError(
            f"keep lacks token {min(missing)} and {len(missing) - 1} others that always stay. "
            "Let plan_vocabulary choose."
        )


def _check_rebuilt(
    tokenizer: Any, rebuilt: Any, wanted: Mapping[str, Any], place: Mapping[int, int]
) -> None:
    """TeacherError unless every token has its new id, and all else is as it was written.

    Tokenizer classes build much of themselves anew when they are loaded, and the library counts the
    ids of added tokens itself.
    """
    name = type(tokenizer).__name__
    due = {token: place[i] for token, i in tokenizer.get_vocab().items() if i in place}
    found = {token: i for token, i in rebuilt.get_vocab().items() if i < len(place)}
    if found != due:
        raise TeacherError(
            f"{name}: two tokens of the teacher's tokenizer share an id, or its ids have gaps, so "
            "its vocabulary cannot be cut. Leave the vocabulary whole."
        )
    read = describe(rebuilt)
    for step in STEPS:
        if read[step] != wanted[step]:
            raise TeacherError(
                f"{name} does not read the {step} that it writes, so its vocabulary cannot be cut. "
                "Leave the vocabulary whole."
            )


__all__ = ["cut_description", "rebuild_tokenizer"]
