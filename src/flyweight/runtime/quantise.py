"""Weights as GGUF's blocks of 32 with one scale, rounded so that they lose the least.

ggml's plain rounding gives a block's largest weight the outermost level. Here the scale is looked
for around that one: each try proposes levels, the levels the scale that fits them best (as in
llama.cpp's `make_qx_quants`), and what errs least stays, the plain scale among them.

Where it is known what feeds a matrix (anatomy/inputs.py), what a column loses is made up for in the
columns after it, block by block, each with a scale of its own: GPTQ (arXiv 2210.17323), within
windows of columns. A row stays as plain rounding has it where that errs less on these inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType

BLOCK = 32  # weights that share a scale
DAMPING = 0.1  # of the mean square of inputs, added to each: other texts are not quite alike
_ROWS = 4096  # in hand at a time: what they need stays in the processor's caches
_FITS = 2  # times that a scale is fitted to its levels again


@dataclass(frozen=True)
class _Levels:
    """The levels of a type from `low` to `high`; places of the largest weight that are tried."""

    low: int
    high: int
    places: np.ndarray

    @property
    def outermost(self) -> int:
        """The level that plain rounding gives the largest weight."""
        return self.low if self.low + self.high else self.high

    def nearest(self, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Levels [32, R] of weights [32, R] at scales [R]; 0 where the scale is 0."""
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
        found = np.rint(x * inverse)
        return np.clip(found, self.low, self.high, out=found)


_LEVELS = {
    GGMLQuantizationType.Q4_0: _Levels(-8, 7, -np.linspace(6.8, 8.8, 6, dtype=np.float32)),
    GGMLQuantizationType.Q5_0: _Levels(-16, 15, -np.linspace(13.6, 17.6, 8, dtype=np.float32)),
    GGMLQuantizationType.Q8_0: _Levels(-127, 127, np.linspace(125, 127.5, 4, dtype=np.float32)),
}
QUANTISED = tuple(_LEVELS)


def quantise(
    weight: np.ndarray,
    kind: GGMLQuantizationType,
    squares: np.ndarray | None = None,
    moments: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """The bytes uint8 [..., B] of weights float32 [..., C] as one of QUANTISED; 32 divides C.

    With `squares` [C] an error counts as much as the square that its column meets, and with
    `moments` (see Inputs) errors are made up for. Never more is lost than by plain rounding: of
    squares, of these squares, or of what each row says on these inputs.
    """
    rows = weight.reshape(-1, weight.shape[-1])
    parts = []
    for first in range(0, len(rows), _ROWS):
        x = np.ascontiguousarray(rows[first : first + _ROWS].T, dtype=np.float32)  # [C, R]
        if moments is None:
            levels, scales = _alone(x, _LEVELS[kind], squares)
        else:
            levels, scales = _together(x, _LEVELS[kind], moments)
        parts.append(_bytes(levels, scales, kind))
    return np.concatenate(parts).reshape(*weight.shape[:-1], -1)


def _alone(
    x: np.ndarray, kind: _Levels, squares: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Levels [C, R] and scales [C / 32, R] of weights [C, R], each block by itself."""
    squares = np.ones(len(x)) if squares is None else squares
    levels, scales = np.empty_like(x), np.empty((len(x) // BLOCK, x.shape[1]), np.float32)
    for number, block in enumerate(_blocks(len(x))):
        scales[number] = _scale(x[block], kind, squares[block])
        levels[block] = kind.nearest(x[block], scales[number])
    return levels, scales


def _blocks(columns: int) -> list[slice]:
    return [slice(first, first + BLOCK) for first in range(0, columns, BLOCK)]


def _scale(x: np.ndarray, kind: _Levels, squares: np.ndarray) -> np.ndarray:
    """The scales [R], as F16 holds them, that lose least of blocks [32, R], by `squares` [32]."""
    weights = squares.astype(np.float32) if squares.any() else np.ones(BLOCK, np.float32)
    weights /= weights.max()
    weighted = x * weights[:, None]

    def fit(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best scale of each block's levels, and how much of its squares that explains."""
        along = np.einsum("ij,ij->j", weighted, levels)
        across = weights @ (levels * levels)
        scale = np.divide(along, across, out=np.zeros_like(along), where=across > 0)
        return scale, scale * along

    largest = _largest(x)
    best, explained = fit(kind.nearest(x, largest / kind.places[0]))
    for place in kind.places[1:]:
        scale, explains = fit(kind.nearest(x, largest / place))
        better = explains > explained
        best, explained = np.where(better, scale, best), np.where(better, explains, explained)

    found = _as_stored(largest / kind.outermost)
    lost = _lost(x, kind.nearest(x, found), found, weights)
    for _ in range(_FITS):
        scale = _as_stored(best)
        levels = kind.nearest(x, scale)
        loses = _lost(x, levels, scale, weights)
        better = loses < lost
        found, lost = np.where(better, scale, found), np.where(better, loses, lost)
        best, _ = fit(levels)
    return found


def _largest(x: np.ndarray) -> np.ndarray:
    return x[np.abs(x).argmax(0), np.arange(x.shape[1])]


def _as_stored(scale: np.ndarray) -> np.ndarray:
    return scale.astype(np.float16).astype(np.float32)


def _lost(x: np.ndarray, levels: np.ndarray, scale: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted square errors [R] of blocks [32, R]."""
    error = levels * scale
    error -= x
    error *= error
    return weights @ error


# ------------------------------------------------------------------ with what feeds the columns


def _together(
    x: np.ndarray, kind: _Levels, moments: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """As `_alone`, window by window; plain rounding for rows that err less so on these inputs."""
    found = []
    first = 0
    for products in moments:
        part = x[first : first + len(products)]
        first += len(products)
        made, plain = _made_up(part, kind, products), _plain(part, kind)
        worse = _said_wrong(part, made, products) > _said_wrong(part, plain, products)
        found.append([np.where(worse, b, a) for a, b in zip(made, plain, strict=True)])
    levels, scales = zip(*found, strict=True)
    return np.concatenate(levels), np.concatenate(scales)


def _plain(x: np.ndarray, kind: _Levels) -> tuple[np.ndarray, np.ndarray]:
    """Levels and scales of weights [W, R] as ggml chooses them."""
    scales = np.stack([_largest(x[block]) / kind.outermost for block in _blocks(len(x))])
    levels = [kind.nearest(x[b], scale) for b, scale in zip(_blocks(len(x)), scales, strict=True)]
    return np.concatenate(levels), _as_stored(scales)


def _made_up(x: np.ndarray, kind: _Levels, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels and scales of one window [W, R] with moments [W, W]."""
    upper, x = _spread(products), x.copy()
    levels, scales = np.empty_like(x), np.empty((len(x) // BLOCK, x.shape[1]), np.float32)
    certain = 1 / upper.diagonal() ** 2  # what a column adds that no later one can make up for
    for number, block in enumerate(_blocks(len(x))):
        scale = scales[number] = _scale(x[block], kind, certain[block])
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
        errors = np.empty((BLOCK, x.shape[1]), np.float32)
        for place in range(BLOCK):
            column = block.start + place
            level = np.clip(np.rint(x[column] * inverse), kind.low, kind.high)
            errors[place] = (x[column] - level * scale) / upper[column, column]
            ahead = slice(column + 1, block.stop)
            x[ahead] -= upper[column, ahead, None] * errors[place]
            levels[column] = level
        x[block.stop :] -= upper[block, block.stop :].T @ errors
    return levels, scales


def _spread(products: np.ndarray) -> np.ndarray:
    """The upper triangle [W, W] by which a column's error moves those after it: GPTQ's."""
    damped = products.astype(np.float64)
    damped[np.diag_indices(len(damped))] += DAMPING * max(damped.diagonal().mean(), 1e-30)
    return np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)


def _said_wrong(
    x: np.ndarray, stored: tuple[np.ndarray, np.ndarray], products: np.ndarray
) -> np.ndarray:
    """The mean square errors [R] of what rows say, on inputs of these moments."""
    levels, scales = stored
    error = levels * scales.repeat(BLOCK, 0) - x
    return np.einsum("ij,ij->j", error, products @ error)


# ------------------------------------------------------------------ bytes


def _bytes(levels: np.ndarray, scales: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """uint8 [R, B] of levels [C, R] and scales [C / 32, R]: ggml's block_q4_0, q5_0 and q8_0."""
    blocks = levels.T.reshape(levels.shape[1], -1, BLOCK)  # [R, C / 32, 32]
    parts: list[np.ndarray] = [
        np.ascontiguousarray(scales.T[..., None].astype("<f2")).view(np.uint8)
    ]
    if kind == GGMLQuantizationType.Q8_0:
        parts.append(blocks.astype(np.int8).view(np.uint8))
    else:
        whole = (blocks - _LEVELS[kind].low).astype(np.uint8)
        if kind == GGMLQuantizationType.Q5_0:
            parts.append(np.packbits(whole >> 4, axis=-1, bitorder="little"))
        low = whole & 15
        parts.append(low[..., : BLOCK // 2] | low[..., BLOCK // 2 :] << 4)
    return np.concatenate(parts, -1).reshape(len(blocks), -1)


__all__ = ["BLOCK", "QUANTISED", "quantise"]
