"""What a teacher says about a token, in 3 bytes a candidate: packed, unpacked, and how far off.

Of each token are kept the log of the tail's mass, exact; which are the k likeliest tokens; and how
far each lies below the likeliest, in 255 steps of the distance to the last. The log-probabilities
follow, since with the tail they sum to 1: the likeliest has no rounding of its own, and an error
weighs as much as what the teacher leaves to the others. Half precision needs a byte more and rounds
to 1e-7 nats; this rounds to 1e-5 (the demo's teacher, and logits of deviation 3 to 6 over 128,256
tokens), a thousandth of what a student ends with.

An index takes 16 bits, and a plane of k bits more for each bit that the vocabulary needs above.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from flyweight.distill.divergences import Top

Columns = dict[str, np.ndarray]
STEPS = 255
FARTHEST = 80.0  # nats below the likeliest; beyond is as good as never
SAID = ("top", "indices", "tail")  # what is unpacked
LOW_BITS = 16


def bytes_a_token(k: int, vocabulary: int) -> int:
    """Bytes that the k likeliest of `vocabulary` tokens and their tail take, per token recorded."""
    k = min(k, vocabulary)
    return 3 * k + 8 + -(-_planes(vocabulary) * k // 8)


def _planes(vocabulary: int) -> int:
    """Bits of an index beyond the low ones."""
    return max(0, (vocabulary - 1).bit_length() - LOW_BITS)


def pack(top: Top, vocabulary: int) -> Columns:
    """The columns of a record of n tokens: each an array whose first dimension is n."""
    assert top.tail is not None
    offsets = (top.log_p[:, :1] - top.log_p).clamp(0, FARTHEST)  # [n, k], falling probabilities
    reach = offsets[:, -1:]
    steps = (offsets / torch.where(reach > 0, reach, 1) * STEPS).round()
    indices = top.indices.numpy()
    columns = {
        "tail": top.tail.float().numpy(),  # [n]
        "reach": reach[:, 0].float().numpy(),  # [n]
        "steps": steps.to(torch.uint8).numpy(),  # [n, k]
        "low": indices.astype(np.uint16),  # [n, k], what is above 16 bits cut off
    }
    planes = _planes(vocabulary)
    if planes:
        above = (indices[:, None, :] >> (LOW_BITS + np.arange(planes)[:, None])) & 1  # [n, P, k]
        columns["high"] = np.packbits(above.reshape(len(indices), -1).astype(bool), axis=1)
    return columns


def unpack(columns: Mapping[str, np.ndarray], rows: slice, key: str) -> Tensor:
    """`top` float32 [n, k], `indices` int32 [n, k] or `tail` float32 [n] of the tokens `rows`.

    The probabilities of `top` and `tail` sum to 1.
    """
    if key == "tail":
        return torch.from_numpy(np.array(columns["tail"][rows]))
    if key == "indices":
        return torch.from_numpy(_indices(columns, rows))
    offsets = columns["steps"][rows] * (columns["reach"][rows, None] / np.float32(-STEPS))
    mass = np.exp(offsets).sum(1, dtype=np.float64)
    tail = np.minimum(columns["tail"][rows].astype(np.float64), -1e-12)
    whole = np.log(-np.expm1(tail)) - np.log(mass)  # of what the tail leaves
    offsets += whole[:, None].astype(np.float32)
    return torch.from_numpy(offsets)


def _indices(columns: Mapping[str, np.ndarray], rows: slice) -> np.ndarray:
    found = columns["low"][rows].astype(np.int32)
    if "high" in columns:
        n, k = found.shape
        packed = columns["high"][rows]
        planes = packed.shape[1] * 8 // k
        bits = np.unpackbits(packed, axis=1, count=planes * k).reshape(n, planes, k)
        for plane in range(planes):
            found |= bits[:, plane].astype(np.int32) << (LOW_BITS + plane)
    return found


def rounding(top: Top, columns: Columns) -> Tensor:
    """float64 [n]: KL in nats from what was said to what was kept of it, the tail as one event."""
    assert top.tail is not None
    said = top.log_p.double()
    kept = unpack(columns, slice(None), "top").double()
    # the terms of the generalised KL are none of them negative: no cancellation between them
    ratio = kept - said
    return (said.exp() * (torch.expm1(ratio) - ratio)).sum(-1)


def left_out(top: Top, vocabulary: int) -> tuple[Tensor, Tensor]:
    """float64 [n] each: the tail's mass m, and a bound on what KL(teacher || student) lacks.

    With the tail as one event KL is too small by m x the KL within the tail. None of its V - k
    tokens is likelier than the k-th, p: for a student that is even there, that is at most
    m log((V - k) p / m). (The gradient by the student's logits is off by at most 2 m in L1, for any
    student.)
    """
    assert top.tail is not None
    tail, others = top.tail.double(), vocabulary - top.log_p.shape[-1]
    if others <= 0:
        return torch.zeros_like(tail), torch.zeros_like(tail)
    mass = tail.exp()
    uneven = np.log(others) + top.log_p[:, -1].double() - tail
    return mass, mass * uneven.clamp_min(0)


__all__ = ["SAID", "Columns", "bytes_a_token", "left_out", "pack", "rounding", "unpack"]
