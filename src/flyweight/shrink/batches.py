"""Prompts of any number, one padded batch at a time; only a window of them is held."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Prompt = Sequence[int] | Mapping[str, Any]  # token ids, or a training row: input_ids and weights
WINDOW = 64  # batches among which prompts are sorted by length
MOST = 2**14  # tokens of a batch, padding included; a longer sequence stands alone


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences."""

    ids: Tensor  # int64 [B, T]
    counts: Tensor  # bool [B, T]: no padding
    weights: Tensor  # float32 [B, T]: of predicting that token


@dataclass(frozen=True)
class _Row:
    """One sequence."""

    ids: np.ndarray  # int32 [T]
    weights: np.ndarray  # float32 [T]

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, tokens: int) -> _Row:
        return _Row(self.ids[:tokens], self.weights[:tokens])


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
            told = (len(row).to_bytes(8, "little"), row.ids.tobytes(), row.weights.tobytes())
            self._digest.update(b"".join(told))
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
        ids = np.asarray(prompt, dtype=np.int32)
        return _Row(ids, np.ones(len(ids), dtype=np.float32))
    ids = np.asarray(prompt["input_ids"], dtype=np.int32)
    return _Row(ids, np.asarray(prompt["weights"], dtype=np.float32))


def _padded(rows: Sequence[_Row]) -> Batch:
    size = (len(rows), max(map(len, rows)))
    ids, counts = torch.zeros(size, dtype=torch.long), torch.zeros(size, dtype=torch.bool)
    weights = torch.zeros(size)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.from_numpy(row.ids)
        counts[place, : len(row)] = True
        weights[place, : len(row)] = torch.from_numpy(row.weights)
    return Batch(ids, counts, weights)
