"""One file of a teacher's record: standard safetensors, with a checksum of what it holds.

Written under a temporary name and renamed; read by mapping it, so that only what is used is loaded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from flyweight.distill.packed import Columns

HEADER = 1024  # bytes, at most, beside the columns
_ENTRY = "facts and their SHA-256 with the columns"
_TYPES = {"F32": np.float32, "U16": np.uint16, "U8": np.uint8}


@dataclass(frozen=True)
class Shard:
    """A whole shard: its columns [n, ...], mapped; what is known of it; the checksum of both."""

    columns: Columns
    facts: dict[str, Any]
    sha256: str


def write_shard(path: Path, columns: Columns, facts: dict[str, Any]) -> Shard:
    """Write a shard and open it; the same columns and facts (JSON values) give the same bytes."""
    told = json.dumps(facts, sort_keys=True)
    scratch = path.with_name(f".{path.name}")
    # one entry: safetensors writes several in an order of chance
    save_file(columns, scratch, {_ENTRY: json.dumps([told, _digest(columns, told)])})
    scratch.replace(path)
    shard = open_shard(path)
    if shard is None:  # a disk that does not keep what it is given
        raise OSError(f"{path} does not hold what was written")
    return shard


def open_shard(path: Path) -> Shard | None:
    """The shard in a file; None where there is none, or it is not as it was written."""
    try:
        with safe_open(path, "np") as file:  # checks that header and length fit together
            metadata = file.metadata() or {}
        columns = _mapped(path)
        told, wanted = json.loads(metadata[_ENTRY])
        facts = json.loads(told)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(facts, dict) or _digest(columns, told) != wanted:
        return None
    return Shard(columns, facts, wanted)


def _mapped(path: Path) -> Columns:
    """The tensors of a safetensors file as views of its bytes on disk."""
    raw = np.memmap(path, mode="r")
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    columns = {}
    for name, entry in json.loads(raw[8:start].tobytes()).items():
        if name != "__metadata__":
            first, end = entry["data_offsets"]
            part = raw[start + first : start + end]
            columns[name] = part.view(np.ndarray).view(_TYPES[entry["dtype"]])
            columns[name] = columns[name].reshape(entry["shape"])
    return columns


def _digest(columns: Columns, told: str) -> str:
    digest = hashlib.sha256(told.encode())
    for name in sorted(columns):
        each = np.ascontiguousarray(columns[name])
        digest.update(f"{name} {each.dtype} {each.shape}".encode())
        digest.update(each.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


__all__ = ["HEADER", "Shard", "open_shard", "write_shard"]
