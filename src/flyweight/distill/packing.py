"""Documents side by side in rows of one length, none of which sees another.

A document's positions start at 0 where it begins, and nothing else is said: where no mask is given,
transformers finds the documents of a row by these (`masking_utils`, `find_packed_sequence_indices`)
and lets each token attend within its own, in windows that slide too. Its eager and sdpa attention
take that mask on every device. A model that does not keep its documents apart is found out by
trying (`packable`), and then has one document a row.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from flyweight.distill.packed import SAID
from flyweight.distill.trainer import Row

JOINED = ("input_ids", "weights", "position_ids")
TRIED = (5, 7, 4)  # tokens of the documents that a model is tried on
CLOSE = 1e-3  # of the largest hidden state: rounding is far less, a word from next door far more


class PackedRow(dict[str, Any]):
    """Training rows side by side as one, joined when asked for; what a teacher said of them too.

    `input_ids` int32 [T]; `position_ids` int32 [T], from 0 in each; `weights` float32 [T], 0 for
    the first token of each, which the last of the one before does not predict.
    """

    def __init__(self, parts: Sequence[Row]) -> None:
        super().__init__()
        self.parts = tuple(parts)

    def __missing__(self, key: str) -> Any:
        if key not in self:
            raise KeyError(key)
        if key in SAID:
            return torch.cat([part[key] for part in self.parts])
        if key == "position_ids":
            return np.concatenate([np.arange(size(part), dtype=np.int32) for part in self.parts])
        joined = np.concatenate([np.asarray(part[key]) for part in self.parts])
        if key == "weights":
            joined[np.cumsum([0, *map(size, self.parts[:-1])])] = 0
        return joined

    def __contains__(self, key: object) -> bool:
        return key in JOINED or (key in SAID and key in self.parts[0])


def size(row: Row) -> int:
    """The tokens of a row."""
    return sum(map(size, row.parts)) if isinstance(row, PackedRow) else len(row["input_ids"])


def side_by_side(rows: Sequence[Row], length: int) -> list[PackedRow]:
    """The rows, none longer than `length`, in as few of that length as come about.

    The longest first, each where it leaves the least room.
    """
    filled: list[list[Row]] = []
    room: list[tuple[int, int]] = []  # what is left in each of `filled`, and its place, sorted
    for row in sorted(rows, key=size, reverse=True):
        at = bisect_left(room, (size(row), 0))
        if at == len(room):
            filled.append([])
            left, place = length, len(filled) - 1
        else:
            left, place = room.pop(at)
        filled[place].append(row)
        insort(room, (left - size(row), place))
    return [PackedRow(parts) for parts in filled]


@torch.no_grad()
def packable(model: Any, length: int) -> bool:
    """Whether the model keeps documents apart that stand in one row of `length` tokens.

    Not where its rotary frequencies depend on the longest document of a batch, as those of long
    contexts may (dynamic, longrope), nor where its attention takes no notice of the positions.
    """
    if _frequencies_depend_on(model.config, length):
        return False
    vocabulary, total = model.get_input_embeddings().num_embeddings, sum(TRIED)
    ids = (torch.arange(2 * total) * 7 % vocabulary).view(2, total).to(model.device)
    documents = ids.split(TRIED, dim=1)  # two rows: some kernels keep documents apart in one alone
    places = torch.cat([torch.arange(count) for count in TRIED]).expand(2, -1).to(model.device)
    try:
        together = model.base_model(input_ids=ids, position_ids=places, use_cache=False)
    except TypeError:  # it takes no positions
        return False
    alone = [model.base_model(input_ids=each, use_cache=False) for each in documents]
    wished = torch.cat([each.last_hidden_state for each in alone], dim=1)
    gap = (together.last_hidden_state - wished).abs().max()
    return bool(gap <= CLOSE * wished.abs().max())


def _frequencies_depend_on(config: Any, length: int) -> bool:
    original = getattr(config, "original_max_position_embeddings", None)
    for told in _ropes(getattr(config, "rope_parameters", None)):
        made_for = told.get("original_max_position_embeddings") or original
        made_for = made_for or config.max_position_embeddings
        if told.get("rope_type") in ("dynamic", "longrope") and length > made_for:
            return True
    return False


def _ropes(told: Any) -> Iterator[Mapping[str, Any]]:
    """The rotary settings: one for all layers, or one for each kind of layer."""
    if isinstance(told, Mapping):
        if "rope_type" in told:
            yield told
        for each in told.values():
            yield from _ropes(each)


__all__ = ["PackedRow", "packable", "side_by_side", "size"]
