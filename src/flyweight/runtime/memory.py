"""How much memory a GGUF file will take for a context, foretold from its sizes.

Weights are the file's bytes, and those of Q4_0 once more, since llama.cpp keeps a copy laid out for
this processor beside the pages it read. Keys and values follow from the shape. What is left was
measured: 3.65 bytes for each pair of a position and one of the tokens read at a time, the widest
activations of those, and a constant for libraries and the server (`benchmarks/context.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType

from flyweight.errors import EngineError, OptionError
from flyweight.runtime.gguf_header import read_header

READ_AT_ONCE = 512  # tokens of a prompt that llama.cpp takes in one pass
MASK_BYTES = 3.65  # for each position, of each of those
ACTIVATIONS = (2.0, 6.7)  # floats of each of those, in MLP widths and in hidden widths
FLOAT = 4
SERVER_BYTES = 18.3e6  # and libraries
TOKEN_BYTES = 137.0  # of each in the vocabulary, for its text and its merges
_MOST = 2**31  # that a size can be
ROUNDED_TO = 256  # positions
EYES_KV = 32  # bits of the keys and values that the engine of models with eyes keeps
KV_BYTES = {EYES_KV: 4.0, 16: 2.0, 8: 34 / 32}  # a number: Q8_0 has a scale of 16 bits for 32


@dataclass(frozen=True)
class Sizes:
    """What a file says of itself: sizes of the network, and bytes of its weights.

    `kv_width`: keys and values of one position over all layers, in numbers; `context`: the longest
    it was made for; `repacked_bytes`: of the weights that are copied; `key_length`: of one head.
    Layers whose attention slides are counted as if it did not: with those it is an upper bound.
    """

    context: int
    hidden: int
    mlp: int
    vocabulary: int
    kv_width: int
    key_length: int
    bytes: int
    repacked_bytes: int

    def memory(self, context: int, streams: int = 1, kv_bits: int = 16) -> int:
        """Bytes at the peak, beyond the process itself, for `streams` of `context` tokens."""
        positions = -(-context // ROUNDED_TO) * ROUNDED_TO
        at_once = min(READ_AT_ONCE, positions)
        widths = ACTIVATIONS[0] * self.mlp + ACTIVATIONS[1] * self.hidden
        read = at_once * (MASK_BYTES * positions + FLOAT * widths)
        held = self.kv_width * KV_BYTES[kv_bits] * positions * streams
        known = SERVER_BYTES + TOKEN_BYTES * self.vocabulary
        return round(self.bytes + self.repacked_bytes + held + read + known)

    def longest(self, memory: int, streams: int = 1, kv_bits: int = 16) -> int:
        """The longest context whose `memory` that is, 0 where not even the shortest fits."""
        low, high = 0, self.context // ROUNDED_TO
        while low < high:
            middle = -(-(low + high) // 2)
            if self.memory(middle * ROUNDED_TO, streams, kv_bits) <= memory:
                low = middle
            else:
                high = middle - 1
        return low * ROUNDED_TO


def sizes_of(gguf: Path) -> Sizes:
    """The sizes in a GGUF file's header; EngineError for a file that is no model that writes."""
    header = read_header(gguf)
    kind = header.architecture

    def size(key: str, otherwise: Any = None) -> Any:
        value = header.keys.get(f"{kind}.{key}", otherwise)
        each = value if isinstance(value, list) else [value]
        if not each or not all(isinstance(one, int) and 0 < one < _MOST for one in each):
            raise EngineError(
                f"{gguf}: says nothing of its {key}, or what cannot be: it is no model that writes"
            )
        return value

    def one(key: str, otherwise: Any = None) -> int:
        return _most(size(key, otherwise))

    tokens = header.keys.get("tokenizer.ggml.tokens", [])
    if not isinstance(tokens, list):
        raise EngineError(f"{gguf}: its tokens are no list: it is damaged")
    hidden, heads = one("embedding_length"), size("attention.head_count")
    key_length = one("attention.key_length", max(1, hidden // _most(heads)))
    value_length = one("attention.value_length", key_length)
    groups = size("attention.head_count_kv", heads)
    groups = sum(groups) if isinstance(groups, list) else groups * one("block_count")
    return Sizes(
        context=one("context_length"),
        hidden=hidden,
        mlp=one("feed_forward_length"),
        vocabulary=len(tokens),
        kv_width=groups * (key_length + value_length),
        key_length=key_length,
        bytes=gguf.stat().st_size,
        repacked_bytes=sum(
            tensor.bytes
            for tensor in header.tensors.values()
            if tensor.kind == GGMLQuantizationType.Q4_0
        ),
    )


def _most(sizes: Any) -> int:
    """The largest of what may differ between layers."""
    return max(sizes) if isinstance(sizes, list) else sizes


def available_memory() -> int | None:
    """Bytes that this process may still take, as the system says; None where it does not."""
    found = [*_meminfo(), *_cgroup()]
    return min(found) if found else None


def _meminfo() -> list[int]:
    file = Path("/proc/meminfo")
    if not file.exists():
        return []
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    return [int(lines["MemAvailable"].split()[0]) * 1024] if "MemAvailable" in lines else []


def _cgroup() -> list[int]:
    """What the container's limit leaves (cgroup v2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return []
        used = int((folder / "memory.current").read_text())
        told = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        given_back = int(told["inactive_file"]) + int(told["active_file"])  # pages of files
        return [max(0, int(limit) - used + given_back)]
    except (OSError, ValueError, KeyError):
        return []


def check_memory(gguf: Path, sizes: Sizes, context: int, streams: int, kv_bits: int) -> None:
    """EngineError with the context that would fit, where this one does not.

    OptionError for keys and values of 8 bits where heads are no whole blocks of them.
    """
    if kv_bits not in (16, 8):
        raise OptionError(f"kv_bits is {kv_bits}: choose from 16 and 8")
    if kv_bits == 8 and sizes.key_length % 32:
        raise OptionError(
            f"{gguf}: its heads have {sizes.key_length} dimensions: keys and values in 8 bits need "
            "a multiple of 32"
        )
    free = available_memory()
    needed = sizes.memory(context, streams, kv_bits)
    if free is None or needed <= free:
        return
    fits = sizes.longest(free, streams, kv_bits)
    hint = f"a context of {fits:,} would fit" if fits else "not even the shortest context would fit"
    if kv_bits == 16 and sizes.key_length % 32 == 0:
        halved = sizes.longest(free, streams, 8)
        hint += f", with kv_bits=8 one of {halved:,}" if halved > fits else ""
    raise EngineError(
        f"{gguf}: {streams} x {context:,} tokens need {needed / 1e9:.2f} GB of memory and "
        f"{free / 1e9:.2f} GB are free; {hint}"
    )


__all__ = ["Sizes", "available_memory", "check_memory", "sizes_of"]
