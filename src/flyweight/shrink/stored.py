"""Tensors in a checkpoint's files: sliced without being read, only what stays is read, overwritten.

By plain reads, not by mapping files into memory: a mapped page counts as this process's as long as
the file stays open.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from flyweight.errors import TeacherError
from flyweight.weight_files import weight_files

KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
BLOCK_BYTES = 4 * 2**20  # read at a time


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, sliced as torch's are; `contiguous()` reads what was taken of it.

    `sizes` are those in the file, `taken` the indices along each dimension, None for all.
    """

    file: Path
    kind: torch.dtype
    start: int  # of its bytes
    sizes: tuple[int, ...]
    taken: tuple[Tensor | None, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of what was taken."""
        pairs = zip(self.sizes, self.taken, strict=True)
        return tuple(size if index is None else len(index) for size, index in pairs)

    def index_select(self, number: int, index: Tensor) -> StoredTensor:
        """`index` [n] of dimension `number`."""
        before = self.taken[number]
        new = index if before is None else before[index]
        return replace(self, taken=(*self.taken[:number], new, *self.taken[number + 1 :]))

    def __getitem__(self, place: int) -> StoredTensor:
        """One part along the first dimension, which must be whole."""
        start = self.start + place * self._row_bytes
        return StoredTensor(self.file, self.kind, start, self.sizes[1:], self.taken[1:])

    @property
    def _row_bytes(self) -> int:
        return math.prod(self.sizes[1:]) * self.kind.itemsize

    def contiguous(self) -> Tensor:
        """What was taken, read block by block; TeacherError where the file cannot be read."""
        found = torch.empty(self.shape, dtype=self.kind)
        into = np.frombuffer(raw_bytes(found), self._number).reshape(self.shape)
        rows, *others = (None if index is None else index.numpy() for index in self.taken)
        rows = np.arange(self.sizes[0]) if rows is None else rows
        each = max(1, BLOCK_BYTES // max(1, self._row_bytes))
        room = torch.empty(min(each, self.sizes[0]) * self._row_bytes, dtype=torch.uint8)
        try:
            with self.file.open("rb") as file:
                for first in range(0, self.sizes[0], each):
                    places = np.flatnonzero((rows >= first) & (rows < first + each))
                    if len(places):
                        block = self._read(file, room, rows[places])
                        for number, index in enumerate(others, 1):
                            block = block if index is None else block.take(index, number)
                        into[_as_slice(places)] = block
        except OSError as error:
            raise TeacherError(f"{self.file} cannot be read ({error.strerror}).") from error
        return found

    def overwrite(self, tensor: Tensor) -> None:
        """Put `tensor`, of the sizes in the file, in its place there, rounded to its type."""
        if tuple(tensor.shape) != self.sizes:
            raise ValueError(f"{tuple(tensor.shape)} does not go where {self.sizes} is")
        with self.file.open("r+b") as file:
            file.seek(self.start)
            file.write(raw_bytes(tensor.detach().to("cpu", self.kind).contiguous()))

    @property
    def _number(self) -> str:
        """The type that numpy takes the numbers for: it knows no bf16, and only moves them."""
        return f"u{self.kind.itemsize}"

    def _read(self, file: BufferedReader, room: Tensor, rows: Any) -> Any:
        """These rows; all between the first and the last are read, into `room`."""
        first, last = int(rows.min()), int(rows.max())
        raw = raw_bytes(room[: (last + 1 - first) * self._row_bytes])
        file.seek(self.start + first * self._row_bytes)
        if file.readinto(raw) != len(raw):
            raise TeacherError(f"{self.file} is cut short. Download or save it again.")
        block = np.frombuffer(raw, self._number).reshape(-1, *self.sizes[1:])
        return block if self.taken[0] is None else block.take(rows - first, 0)


def _as_slice(places: Any) -> Any:
    """The same places, as a slice where they follow each other: much faster to write to."""
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last + 1 - first == len(places) else places


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, not copied."""
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor in the files that transformers would load, by name; TeacherError for bad ones.

    That is `model.safetensors`, or else the shards that `model.safetensors.index.json` names.
    """
    return {name: told for file in weight_files(folder) for name, told in _tensors_in(file)}


def _tensors_in(file: Path) -> Iterator[tuple[str, StoredTensor]]:
    try:
        with safe_open(file, framework="np"):  # checks that header and length agree
            pass
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise TeacherError(f"{file} cannot be read. Download or save it again.") from error
    for name, told in header.items():
        if name == "__metadata__":
            continue
        if told["dtype"] not in KINDS:
            raise TeacherError(
                f"{file}: {name} is of the type {told['dtype']}. Give the model at 16 or 32 bits."
            )
        sizes = tuple(told["shape"])
        start = 8 + length + told["data_offsets"][0]
        yield name, StoredTensor(file, KINDS[told["dtype"]], start, sizes, (None,) * len(sizes))
