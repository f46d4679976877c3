"""A loss over the vocabulary from hidden states, without the logits of the whole sequence.

The positions are taken in chunks. Of each the logits are computed, judged and turned into their
gradient in place, and the head's two products are taken at once: the forward pass computes the
gradients, the backward pass hands them out. What is held besides the head's own gradient is one
chunk of logits, however long the sequence (Liger's chunked losses have the idea; they keep the
logits' several copies and a second gradient of the head).

Within a chunk the passes over the logits run over a few rows at a time, in fp32: those stay in a
core's cache, where a pass costs a tenth of what it costs in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flyweight.distill.alignment import select, select_into
from flyweight.distill.divergences import Top, top_of
from flyweight.distill.drawn import DRAWING, Draw, top_with_drawn
from flyweight.distill.head import Head
from flyweight.distill.judges import Judge

CHUNK_BYTES = 256 * 2**20  # of logits, the student's and a live teacher's, held at once
CACHED = 2**18  # logits that are judged at once on a CPU
SLAB = 4096  # rows of the head's gradient that are summed at once in half precision
SMALL = 2**22  # numbers in a head whose gradient is one product
# The same of a GPU. Each chunk reads and writes the head's whole gradient, which takes as long as
# the product of 500 positions; products come in tiles of 128; a softmax has one of its more than
# 100 processors to a row, two rows each, and some fifteen launches go with a block; half its cache.
GPU_CHUNK_BYTES = 2**30  # of a GPU of 64 GiB; of a smaller one less
GPU_TILE = 128
GPU_BLOCK = 2**25
GPU_SLAB = 2**24  # numbers


def chunked_loss(
    hidden: Tensor, head: Head, weights: Tensor, judge: Judge, budget: int | None = None
) -> Tensor:
    """The sum of `weights` [N] x the judge's values at `hidden` [N, D], differentiable once.

    Products are taken in autocast's type, or else the head's. Memory beyond the gradients: `budget`
    bytes of logits (None: what suits the device) and a copy of a head that is stored in another
    type.
    """
    tensors = [each for each in (hidden, head.weight, head.bias) if each is not None]
    wanted = torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
    return _Chunked.apply(
        hidden, head.weight, head.bias, head.scaling, weights, judge, budget, wanted
    )  # type: ignore[return-value]


class _Chunked(torch.autograd.Function):
    """`chunked_loss`."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scaling: Callable[[Tensor], Tensor] | None,
        weights: Tensor,
        judge: Judge,
        budget: int | None,
        wanted: bool,
    ) -> Tensor:
        head = Head(weight, bias, scaling).to(_product_type(hidden, weight))
        with torch.autocast(hidden.device.type, enabled=False):
            sums = _Gradients(hidden, weight, bias, ctx.needs_input_grad) if wanted else None
            values = _walk(hidden, head, weights, judge, budget, sums)
        ctx.gradients = sums and (sums.hidden, sums.weight, sums.bias)
        return (values * weights).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if ctx.gradients is None:
            raise RuntimeError("a chunked loss hands out its gradients once: compute it again")
        gradients, ctx.gradients = ctx.gradients, None
        if gradient != 1:  # asked once: a GPU is waited for
            for each in gradients:
                if each is not None:
                    each.mul_(gradient)
        return *gradients, None, None, None, None, None


def _walk(
    hidden: Tensor,
    head: Head,
    weights: Tensor,
    judge: Judge,
    budget: int | None,
    sums: _Gradients | None,
) -> Tensor:
    """The judge's values [N], chunk by chunk; each chunk's gradients go to `sums`."""
    positions, size, dtype = len(hidden), len(head.weight), head.weight.dtype
    rows = _rows(hidden, (size + judge.width()) * dtype.itemsize, budget)
    buffer = torch.empty(rows, size, dtype=dtype, device=hidden.device)
    exact = torch.promote_types(dtype, torch.float32)
    values = torch.zeros(positions, dtype=exact, device=hidden.device)
    weights = weights.to(exact)
    at_once = max(1, (CACHED if hidden.device.type == "cpu" else GPU_BLOCK) // size)
    desk = torch.empty(min(at_once, rows), size, dtype=exact, device=hidden.device)
    for start in range(0, positions, rows):
        chunk = slice(start, min(start + rows, positions))
        inputs = hidden[chunk].to(dtype)
        logits = head.logits(inputs, buffer[: len(inputs)])
        judge.hear(chunk, dtype)
        for first in range(chunk.start, chunk.stop, at_once):
            block = slice(first, min(first + at_once, chunk.stop))
            here = logits[first - start : block.stop - start]
            values[block] = _judge_block(here, desk, head.scaling, judge, block, weights[block])
        if sums is not None:
            sums.add(logits, inputs, head.weight, chunk)
    return values


@torch.no_grad()
def top_from_hidden(
    hidden: Tensor,
    head: Head,
    k: int,
    budget: int | None = None,
    draw: Draw | None = None,
) -> Top:
    """A teacher's k likeliest tokens at `hidden` [N, D], and their tail, chunk by chunk.

    With `draw` also tokens of the tail: the same ones however large the chunks are. Products are
    taken in autocast's type, or else the head's; the result is fp32.
    """
    dtype = _product_type(hidden, head.weight)
    exact = torch.promote_types(dtype, torch.float32)
    size = len(head.weight)
    each = dtype.itemsize + exact.itemsize + (DRAWING if draw else 0)
    rows = _rows(hidden, size * each, budget)
    lots = draw.lots(len(hidden)).to(hidden.device).split(rows) if draw else None
    parts: list[Top] = []
    with torch.autocast(hidden.device.type, enabled=False):
        head = head.to(dtype)
        buffer = torch.empty(rows, size, dtype=dtype, device=hidden.device)
        for number, inputs in enumerate(hidden.to(dtype).split(rows)):
            said = head.logits(inputs, buffer[: len(inputs)]).to(exact, copy=True)
            said = said if head.scaling is None else head.scaling(said)
            if draw is None or lots is None:
                parts.append(top_of(said, min(k, size)))
            else:
                parts.append(top_with_drawn(said, k, draw.count, lots[number]))
    drawn = [part.drawn for part in parts if part.drawn is not None]
    return replace(_joined(parts), drawn=_joined(drawn) if drawn else None)


def _joined(parts: list[Top]) -> Top:
    """The tops of all chunks as one."""
    tails = [part.tail for part in parts if part.tail is not None]
    return Top(
        torch.cat([part.log_p for part in parts]),
        torch.cat([part.indices for part in parts]),
        torch.cat(tails) if tails else None,
    )


def _product_type(hidden: Tensor, weight: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def _rows(hidden: Tensor, bytes_each: int, budget: int | None) -> int:
    """`chunk_rows` as it suits the device."""
    tile = 1 if hidden.device.type == "cpu" else GPU_TILE
    return chunk_rows(len(hidden), bytes_each, budget or _usual_budget(hidden.device), tile)


def _usual_budget(device: torch.device) -> int:
    if device.type != "cuda":
        return CHUNK_BYTES
    there = torch.cuda.get_device_properties(device).total_memory
    return max(CHUNK_BYTES, min(GPU_CHUNK_BYTES, there // 64))


def chunk_rows(positions: int, bytes_each: int, budget: int, tile: int = 1) -> int:
    """How many positions make a chunk: as many as the budget holds, in chunks of one size.

    Rounded up to a multiple of `tile` where the budget holds that.
    """
    most = max(1, budget // bytes_each)
    chunks = -(-positions // most)
    rows = -(-positions // chunks) if chunks else 1
    whole = rows + -rows % tile
    return whole if whole <= most else rows


def _judge_block(
    logits: Tensor,
    desk: Tensor,
    scaling: Callable[[Tensor], Tensor] | None,
    judge: Judge,
    rows: slice,
    weights: Tensor,
) -> Tensor:
    """The values [n] of a few positions, whose `logits` [n, V] become the gradient."""
    raw = desk[: len(logits)].copy_(logits)
    said = raw
    if scaling is not None:
        raw.requires_grad_()
        with torch.enable_grad():
            said = scaling(raw)
    free = said if scaling is None else said.detach().clone()
    columns = judge.columns
    if columns is None:
        values, gradient = judge.judge_(free, rows, weights)
    else:
        values, part = judge.judge_(select(free, columns), rows, weights)
        gradient = torch.zeros_like(free)
        select_into(gradient, columns, part)
    if scaling is not None:
        (gradient,) = torch.autograd.grad(said, raw, gradient)
        raw.requires_grad_(False)
    logits.copy_(gradient)
    return values


class _Gradients:
    """The gradients of hidden states, head and bias, summed chunk by chunk."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, needed: tuple[bool, ...]
    ) -> None:
        self.hidden = torch.empty_like(hidden) if needed[0] else None
        # the first chunk writes it, the others add to it
        made = torch.empty_like if len(hidden) else torch.zeros_like
        self.weight = made(weight) if needed[1] else None
        self.bias = torch.zeros_like(bias) if bias is not None and needed[2] else None

    def add(self, logits: Tensor, inputs: Tensor, weight: Tensor, rows: slice) -> None:
        """Add what follows from the gradient of a chunk's logits [n, V]."""
        if self.hidden is not None:
            if self.hidden.dtype == logits.dtype:
                torch.mm(logits, weight, out=self.hidden[rows])
            else:
                self.hidden[rows] = logits @ weight
        if self.weight is not None:
            _add_product(self.weight, logits, inputs, first=rows.start == 0)
        if self.bias is not None:
            self.bias += logits.sum(0, dtype=torch.promote_types(logits.dtype, self.bias.dtype))


def _add_product(total: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
    """total += left^T right, [V, D] from [n, V] and [n, D]; total = if `first`.

    In half precision a CPU multiplies a transposed copy in two thirds of the time of a transposed
    view: the copy is of the product where that is small, else of `left`, slab by slab.
    """
    on_cpu = total.device.type == "cpu"
    if left.dtype == total.dtype and (left.dtype.itemsize > 2 or not on_cpu):
        total.addmm_(left.t(), right, beta=0 if first else 1)
    elif not on_cpu:
        _add_slabs(total, left, right, first=first)
    elif total.numel() <= SMALL:
        product = (right.t().contiguous() @ left).t()
        total.copy_(product) if first else total.add_(product)
    else:
        turned = left.new_empty(SLAB * len(left))
        for start in range(0, len(total), SLAB):
            here = total[start : start + SLAB]
            slab = turned[: len(here) * len(left)].view(len(here), len(left))
            _transpose(left[:, start : start + SLAB], slab)
            if here.dtype == left.dtype:
                here.addmm_(slab, right, beta=0 if first else 1)
            else:
                product = (slab @ right).to(here.dtype)
                here.copy_(product) if first else here.add_(product)


def _add_slabs(total: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
    """`_add_product` on a GPU, to a total of another type: each product is added from its cache."""
    slab = max(1, GPU_SLAB // right.shape[1])
    for start in range(0, len(total), slab):
        here = total[start : start + slab]
        product = left[:, start : start + slab].t() @ right
        here.copy_(product) if first else here.add_(product)


def _transpose(matrix: Tensor, out: Tensor) -> None:
    """`matrix` [n, m] turned into `out` [m, n], a few rows at a time: they stay in the cache."""
    for start in range(0, len(matrix), 64):
        out[:, start : start + 64] = matrix[start : start + 64].t()


__all__ = ["CHUNK_BYTES", "chunk_rows", "chunked_loss", "top_from_hidden"]
