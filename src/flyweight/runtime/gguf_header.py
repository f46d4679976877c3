"""What a GGUF file says before its weights: its keys, its tensors, and how it splits text.

The `gguf` package reads this too, at 8 seconds for a vocabulary of 128 thousand; here it is one.
Format: the GGUF specification of the ggml project, version 3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from flyweight.errors import EngineError

_PLAIN = {  # number of a type -> how numpy calls it
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?",
    10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_OFTEN = 2**24  # entries that no list of a real file exceeds
# What reading lies can raise: sizes that no file has, types that there are not.
_DAMAGED = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError, struct.error,
)  # fmt: skip
EMBEDDING, HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True)
class Tensor:
    """A tensor's place in the file: `shape` as torch has it, `kind` GGML's number of its type.

    `offset` is counted from where the weights begin.
    """

    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def bytes(self) -> int:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        weights, size = GGML_QUANT_SIZES[GGMLQuantizationType(self.kind)]
        return prod(self.shape) // weights * size


@dataclass(frozen=True)
class GgufHeader:
    """The keys and tensors of a GGUF file, by their names."""

    keys: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def architecture(self) -> str:
        return str(self.keys.get("general.architecture", ""))

    @cached_property
    def read_for_a_token(self) -> int:
        """Bytes of weights that a step of one stream reads: all but embeddings looked up in."""
        every = sum(tensor.bytes for tensor in self.tensors.values())
        looked_up = self.tensors.get(EMBEDDING) if HEAD in self.tensors else None
        return every - (looked_up.bytes if looked_up else 0)


def read_header(gguf: Path) -> GgufHeader:
    """The header of a file. Raises EngineError for one that is damaged or no GGUF file."""
    try:
        told = Path(gguf).stat()
    except OSError as error:
        raise EngineError(f"{gguf}: cannot be read: {error.strerror}") from error
    return _read(Path(gguf), told.st_mtime_ns, told.st_size)


@lru_cache(maxsize=4)  # a second for the vocabularies of big models, and asked for repeatedly
def _read(gguf: Path, changed: int, size: int) -> GgufHeader:
    try:
        with gguf.open("rb") as file:
            magic, version, tensors, keys = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version not in (2, 3) or max(tensors, keys) > _OFTEN:
                raise ValueError("not a GGUF file")
            found = {_string(file): _value(file, _number(file, "<u4")) for _ in range(keys)}
            header = GgufHeader(found, dict(_tensor(file) for _ in range(tensors)))
            _check_weights(header, file)
            return header
    except _DAMAGED as error:
        reason = getattr(error, "strerror", None) or f"it is damaged or no GGUF file ({error})"
        raise EngineError(f"{gguf}: cannot be read: {reason}; pack it again") from error


def _check_weights(header: GgufHeader, file: BinaryIO) -> None:
    """ValueError unless all weights lie within the file; it stands where its header ends."""
    aligned = header.keys.get("general.alignment", 32)
    begin = -(-file.tell() // aligned) * aligned
    size = file.seek(0, 2)
    ends = [begin + tensor.offset + tensor.bytes for tensor in header.tensors.values()]
    if max(ends, default=begin) > size:
        raise ValueError(f"{max(ends) - size:,} bytes of its weights are missing")


def _number(file: BinaryIO, kind: str) -> int:
    return int(np.frombuffer(file.read(np.dtype(kind).itemsize), kind)[0])


def _string(file: BinaryIO) -> str:
    return _strings(file, 1)[0]


def _strings(file: BinaryIO, count: int) -> list[str]:
    found, measure, read = [], struct.Struct("<Q"), file.read
    for _ in range(count):
        (length,) = measure.unpack(read(8))
        text = read(length)
        if len(text) < length:
            raise ValueError("ends within a text")
        found.append(text.decode("utf-8", errors="replace"))
    return found


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return np.frombuffer(file.read(np.dtype(_PLAIN[kind]).itemsize), _PLAIN[kind])[0].item()
    inner, count = _number(file, "<u4"), _number(file, "<u8")
    if count > _OFTEN:
        raise ValueError("a list too long")
    if inner == _STRING:
        return _strings(file, count)
    content = np.frombuffer(file.read(count * np.dtype(_PLAIN[inner]).itemsize), _PLAIN[inner])
    if len(content) < count:
        raise ValueError("ends within a list")
    return content.tolist()


def _tensor(file: BinaryIO) -> tuple[str, Tensor]:
    name, dimensions = _string(file), _number(file, "<u4")
    shape = [_number(file, "<u8") for _ in range(min(dimensions, 8))]
    kind, offset = _number(file, "<u4"), _number(file, "<u8")
    return name, Tensor(tuple(reversed(shape)), kind, offset)


__all__ = ["GgufHeader", "Tensor", "read_header"]
