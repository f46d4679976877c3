"""What a teacher says about a token, in 3 bytes a candidate: packed, unpacked, and how far off.

Of each token are kept the log of the tail's mass, exact; which are the k likeliest tokens; and how
far each lies below the likeliest, in 255 steps of the distance to the last. The log-probabilities
follow, since with the tail they sum to 1: the likeliest has no rounding of its own, and an error
weighs as much as what the teacher leaves to the others. Half precision needs a byte more and rounds
to 1e-7 nats; this rounds to 1e-5 (the demo's teacher, and logits of deviation 3 to 6 over 128,256
tokens), a thousandth of what a student ends with.

The tokens that are drawn from the tail (drawn.py) are kept in the same way in columns of their own:
they sum to the tail's mass, and all that stand for one mass stay equal. No mass is off by more than
half a step, before all of them are brought to the sum.

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
DRAWN = "drawn_"  # begins the names of the columns of what is drawn
MOST_DRAWN = 32
MOST_BYTES, USUAL = 300, 64  # of a token, up to 262,144, at this k: fewer are drawn for longer ids


def bytes_a_token(k: int, vocabulary: int, drawn: int = 0) -> int:
    """Bytes a token recorded: the k likeliest of `vocabulary`, their tail, and some drawn of it."""
    k, planes = min(k, vocabulary), _planes(vocabulary)
    lists = [count for count in (k, drawn) if count]
    return 4 + sum(3 * count + 4 + -(-planes * count // 8) for count in lists)


def kept(k: int, vocabulary: int) -> tuple[int, int]:
    """How many of the likeliest are kept, and how many of the others drawn: k, and half as many.

    Fewer are drawn for MOST_DRAWN and MOST_BYTES; where all would be there, all are kept.
    """
    drawn = min(MOST_DRAWN, k // 2)
    while drawn and bytes_a_token(USUAL, vocabulary, drawn) > MOST_BYTES:
        drawn -= 1
    return (vocabulary, 0) if k + drawn >= vocabulary else (k, drawn)


def _planes(vocabulary: int) -> int:
    """Bits of an index beyond the low ones."""
    return max(0, (vocabulary - 1).bit_length() - LOW_BITS)


def pack(top: Top, vocabulary: int) -> Columns:
    """The columns of a record of n tokens: each an array whose first dimension is n."""
    assert top.tail is not None
    columns = {"tail": top.tail.float().numpy()} | _listed(top, vocabulary)  # [n], and of the top
    if top.drawn is not None:
        drawn = _listed(top.drawn, vocabulary)
        columns |= {DRAWN + name: each for name, each in drawn.items()}
    return columns


def _listed(top: Top, vocabulary: int) -> Columns:
    """The columns of tokens [n, k] and their falling masses, but for what these sum to."""
    offsets = (top.log_p[:, :1] - top.log_p).clamp(0, FARTHEST)  # [n, k]
    reach = offsets[:, -1:]
    steps = (offsets / torch.where(reach > 0, reach, 1) * STEPS).round()
    indices = top.indices.numpy()
    columns = {
        "reach": reach[:, 0].float().numpy(),  # [n]
        "steps": steps.to(torch.uint8).numpy(),  # [n, k]
        "low": indices.astype(np.uint16),  # [n, k], what is above 16 bits cut off
    }
    planes = _planes(vocabulary)
    if planes:
        above = (indices[:, None, :] >> (LOW_BITS + np.arange(planes)[:, None])) & 1  # [n, P, k]
        columns["high"] = np.packbits(above.reshape(len(indices), -1).astype(bool), axis=1)
    return columns


def unpack(
    columns: Mapping[str, np.ndarray], rows: slice, key: str, *, drawn: bool = False
) -> Tensor:
    """`top` float32 [n, k], `indices` int32 [n, k] or `tail` float32 [n] of the tokens `rows`.

    The probabilities of `top` and `tail` sum to 1. With `drawn`, what is drawn stands behind the
    top [n, k + s] instead of the tail, and the probabilities of `top` sum to 1.
    """
    tail = np.array(columns["tail"][rows])
    if key == "tail":
        return torch.from_numpy(tail)
    lists = ["", DRAWN] if drawn and DRAWN + "low" in columns else [""]
    if key == "indices":
        parts = [_indices(columns, rows, name) for name in lists]
    else:
        exact = np.minimum(tail.astype(np.float64), -1e-12)
        wholes = {"": np.log(-np.expm1(exact)), DRAWN: exact}  # what each list sums to
        parts = [_masses(columns, rows, name, wholes[name]) for name in lists]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _masses(
    columns: Mapping[str, np.ndarray], rows: slice, name: str, whole: np.ndarray
) -> np.ndarray:
    """The log-probabilities float32 [n, k] of one list, whose logarithm of the sum is `whole`."""
    reach = columns[name + "reach"][rows, None]
    offsets = columns[name + "steps"][rows] * (reach / np.float32(-STEPS))
    sums = np.exp(offsets).sum(1, dtype=np.float64)
    offsets += (whole - np.log(sums))[:, None].astype(np.float32)
    return offsets


def _indices(columns: Mapping[str, np.ndarray], rows: slice, name: str) -> np.ndarray:
    found = columns[name + "low"][rows].astype(np.int32)
    if name + "high" in columns:
        n, k = found.shape
        packed = columns[name + "high"][rows]
        planes = packed.shape[1] * 8 // k
        bits = np.unpackbits(packed, axis=1, count=planes * k).reshape(n, planes, k)
        for plane in range(planes):
            found |= bits[:, plane].astype(np.int32) << (LOW_BITS + plane)
    return found


def rounding(top: Top, columns: Columns) -> Tensor:
    """float64 [n]: KL in nats from what was said to what was kept of it, the tail as it was drawn.

    Where nothing was drawn it is one event.
    """
    lists = [top.log_p] if top.drawn is None else [top.log_p, top.drawn.log_p]
    said = torch.cat(lists, -1).double()
    again = unpack(columns, slice(None), "top", drawn=True).double()
    # the terms of the generalised KL are none of them negative: no cancellation between them
    ratio = again - said
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


__all__ = ["SAID", "Columns", "bytes_a_token", "kept", "left_out", "pack", "rounding", "unpack"]
