"""Prompts of any number, one padded batch at a time; only a window of them is held."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flyweight.anatomy import Family

# token ids, or a training row: input_ids and weights, perhaps position_ids and a picture's number
Prompt = Sequence[int] | Mapping[str, Any]
WINDOW = 64  # batches among which prompts are sorted by length
MOST = 2**14  # tokens of a batch, padding included; a longer sequence stands alone


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences."""

    ids: Tensor  # int64 [B, T]
    counts: Tensor  # bool [B, T]: no padding
    weights: Tensor  # float32 [B, T]: of predicting that token
    positions: Tensor  # int64 [B, T]: from 0 on in each document of a sequence
    pictures: Tensor  # int64 [B]: the number of the picture that it asks of, -1 for none


@dataclass(frozen=True)
class Fed:
    """What a model's body is given of a batch, and which places count of what is read in it.

    `counts` bool [B, T] are those of the tokens, `others` the same of axes along which something
    else is read, such as an encoder's patches.
    """

    inputs: dict[str, Any]
    counts: Tensor
    others: Mapping[str, Tensor] = field(default_factory=dict)

    def of(self, axis: str) -> Tensor:
        """The places that count of what is read along an axis."""
        return self.others.get(axis, self.counts)


Feed = Callable[[Any, Batch], Fed]  # what this model is given of a batch


def feed_texts(family: Family) -> Feed:
    """Feeds models of a family with the texts of batches alone."""

    def feed(model: Any, batch: Batch) -> Fed:
        counts = batch.counts.to(model.device)
        inputs = {"input_ids": batch.ids.to(model.device), **family.inputs(counts)}
        return Fed(inputs, counts)

    return feed


@dataclass(frozen=True)
class _Row:
    """One sequence."""

    ids: np.ndarray  # int32 [T]
    weights: np.ndarray  # float32 [T]
    positions: np.ndarray  # int32 [T]
    picture: int

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, tokens: int) -> _Row:
        ids, weights, positions = self.ids[:tokens], self.weights[:tokens], self.positions[:tokens]
        return _Row(ids, weights, positions, self.picture)

    def told(self) -> bytes:
        """All that it says, for a hash."""
        parts = [len(self).to_bytes(8, "little"), self.ids.tobytes(), self.weights.tobytes()]
        if self.picture >= 0:
            parts += [self.positions.tobytes(), self.picture.to_bytes(8, "little")]
        return b"".join(parts)


class Stream:
    """The batches of `prompts`, in an order that these alone decide; empty prompts are left out.

    `tokens` ends it after exactly so many. `sha256` tells what was read so far, which is always
    whole windows of WINDOW x `batch_size` prompts.
    """

    def __init__(self, prompts: Iterable[Prompt], batch_size: int, tokens: int | None) -> None:
        self.prompts, self.batch_size, self.tokens = prompts, batch_size, tokens
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[Batch]:
        window: list[_Row] = []
        for row in self._rows():
            window.append(row)
            if len(window) == WINDOW * self.batch_size:
                yield from self._batches(window)
                window = []
        yield from self._batches(window)

    def _rows(self) -> Iterator[_Row]:
        left = self.tokens
        for prompt in self.prompts:
            row = _row(prompt)
            if left is not None:
                row = row.first(left)
                left -= len(row)
            if len(row):
                yield row
            if left == 0:
                return

    def _batches(self, window: list[_Row]) -> Iterator[Batch]:
        for row in window:
            self._digest.update(row.told())
        taken: list[_Row] = []
        for row in sorted(window, key=len):
            if taken and (len(taken) == self.batch_size or (len(taken) + 1) * len(row) > MOST):
                yield _padded(taken)
                taken = []
            taken.append(row)
        if taken:
            yield _padded(taken)


def _row(prompt: Prompt) -> _Row:
    if not isinstance(prompt, Mapping):
        prompt = {"input_ids": prompt, "weights": np.ones(len(prompt))}
    ids = np.asarray(prompt["input_ids"], dtype=np.int32)
    places = prompt.get("position_ids", np.arange(len(ids)))
    return _Row(
        ids,
        np.asarray(prompt["weights"], dtype=np.float32),
        np.asarray(places, dtype=np.int32),
        int(prompt.get("picture", -1)),
    )


def _padded(rows: Sequence[_Row]) -> Batch:
    size = (len(rows), max(map(len, rows)))
    ids, counts = torch.zeros(size, dtype=torch.long), torch.zeros(size, dtype=torch.bool)
    weights, positions = torch.zeros(size), torch.arange(size[1]).repeat(size[0], 1)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.from_numpy(row.ids)
        counts[place, : len(row)] = True
        weights[place, : len(row)] = torch.from_numpy(row.weights)
        positions[place, : len(row)] = torch.from_numpy(row.positions)
    return Batch(ids, counts, weights, positions, torch.tensor([row.picture for row in rows]))
