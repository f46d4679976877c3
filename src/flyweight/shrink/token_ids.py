"""Where token ids are written down besides the vocabulary: post-processors and configs."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from flyweight.errors import OptionError

NAMED = re.compile(r"_token_(ids?|index)$")  # eos_token_id, image_token_index, ...
SUPPRESSED = ("suppress_tokens", "begin_suppress_tokens")
WEIGHED = ("sequence_bias", "force_words_ids")


def map_processor(processor: Mapping[str, Any], new: Callable[[int], int]) -> dict[str, Any]:
    """The post-processor of a tokenizer.json with `new(id)` in the place of every id."""
    changed = dict(processor)
    if processor["type"] == "Sequence":
        changed["processors"] = [map_processor(each, new) for each in processor["processors"]]
    elif processor["type"] == "TemplateProcessing":
        changed["special_tokens"] = {
            name: {**told, "ids": [new(i) for i in told["ids"]]}
            for name, told in processor["special_tokens"].items()
        }
    elif processor["type"] in ("BertProcessing", "RobertaProcessing"):
        for side in ("sep", "cls"):
            token, i = processor[side]
            changed[side] = [token, new(i)]
    return changed


def processor_ids(processor: Mapping[str, Any] | None) -> set[int]:
    """The ids that a post-processor puts around texts."""
    found: set[int] = set()

    def note(i: int) -> int:
        found.add(i)
        return i

    if processor is not None:
        map_processor(processor, note)
    return found


def named_ids(*configs: Any) -> set[int]:
    """The ids that configs (of the model, of generation) name: the ends of texts, padding, ..."""
    return {i for config in configs for _, _, ids in _fields(config) for i in _flat(ids) if i >= 0}


def renumber_config(config: Any, keep: Tensor, rows: int | None = None) -> Any:
    """A copy of a model's or generation's config with new ids, where `keep` [V] lists the old ones.

    Sizes stay as they are, and tokens beyond the teacher's `rows` as far beyond. Tokens that are
    only suppressed and went need no suppressing. Raises OptionError for an id that is named and did
    not stay, and for settings that weigh tokens.
    """
    place = {old: new for new, old in enumerate(keep.tolist())}
    if rows is not None:
        place |= {i: i - rows + len(keep) for i in named_ids(config) if i >= rows}
    renumbered = copy.deepcopy(config)
    for holder, name, ids in _fields(renumbered):
        gone = [i for i in _flat(ids) if i >= 0 and i not in place]
        if gone:
            raise OptionError(
                f"the config's {name} is {ids}, but token {gone[0]} does not stay. Keep it: give "
                "named_ids(config) when the vocabulary is planned."
            )
        single = isinstance(ids, int)
        new = [place.get(i, i) for i in _flat(ids)]  # below zero: no token is meant
        setattr(holder, name, new[0] if single else new)
    _renumber_generation(renumbered, place)
    return renumbered


def _renumber_generation(config: Any, place: Mapping[int, int]) -> None:
    """In place, what only a generation config has."""
    for name in SUPPRESSED:
        if getattr(config, name, None):
            setattr(config, name, [place[i] for i in getattr(config, name) if i in place])
    if getattr(config, "bad_words_ids", None):
        whole = [word for word in config.bad_words_ids if all(i in place for i in word)]
        config.bad_words_ids = [[place[i] for i in word] for word in whole] or None
    for name in WEIGHED:
        if getattr(config, name, None):
            raise OptionError(
                f"the generation config sets {name}, which a cut vocabulary cannot keep. Unset it."
            )


def _fields(config: Any) -> Iterator[tuple[Any, str, int | list[int]]]:
    """(holder, field, ids) of a config and those inside it."""
    for name, value in list(vars(config).items()):
        if NAMED.search(name) and isinstance(value, int | list | tuple):
            yield config, name, value if isinstance(value, int) else list(value)
        elif name.endswith("_config") and hasattr(value, "to_dict"):
            yield from _fields(value)


def _flat(ids: int | list[int]) -> list[int]:
    return [ids] if isinstance(ids, int) else ids
