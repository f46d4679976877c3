"""What the building blocks of a network take on a machine: measured once, then added up.

Small random networks of several shapes are run in the engine. From what their answers took, the
cost of each part is fitted: of an answer, a token, a layer, a weight that is multiplied, a place
that is attended to. The sum for another shape is its forecast; `error` says how well that holds for
the networks that were measured, each left out in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from flyweight.anatomy import Family, Shape
from flyweight.make.budget import Figures
from flyweight.runtime.threads import SMALL_FILE

TIMES, PLACES = 8, 3  # costs of seconds, and of memory
FEW = 5
CELLS = 256  # tokens that a cache of an engine grows by
STEPS = 12  # of fitting
LEAST_ERROR = 0.03  # below which errors count by their squares


@dataclass(frozen=True)
class Load:
    """What of a network costs time: its layers, their weights and those of the head, its heads."""

    parameters: int
    layers: int
    weights: float  # of the layers, that a token is multiplied with
    head: float  # that a token which is written is multiplied with as well
    heads: int
    width: int  # of all heads together
    kept: int  # numbers of a token that a layer keeps: keys and values


def load_of(family: Family, shape: Shape, config: Any) -> Load:
    """The load of a shape."""
    whole, table = family.count(shape, config), shape.vocabulary * shape.hidden
    own_head = family.head is not None and not family.is_tied(config)
    weights = float(whole - table * (2 if own_head else 1))
    if shape.experts:  # of which a token visits some
        visited = getattr(config, "num_experts_per_tok", shape.experts) / shape.experts
        weights -= (1 - visited) * 3.0 * shape.layers * shape.experts * shape.mlp * shape.hidden
    head = float(table) if family.causal else 0.0
    width = shape.heads * shape.head_dim
    kept = 2 * shape.kv_groups * shape.head_dim
    return Load(whole, shape.layers, weights, head, shape.heads, width, kept)


@dataclass(frozen=True)
class Run:
    """What a measured network was and took: prompts of `read` tokens, answers of `written`."""

    load: Load
    bytes: float
    read: float
    written: float
    latency_p50: float
    latency_p95: float
    memory: float


@dataclass(frozen=True)
class Blocks:
    """Costs of the parts at one bit width: seconds [8] and bytes of memory [3], see `_times`.

    `jitter`: how far answers of one length lie apart, p95 over p50; `error`: how far off forecasts
    of latency were, relatively, in the median.
    """

    seconds: list[float]
    memory: list[float]
    jitter: float
    error: float

    def latency(self, load: Load, read: np.ndarray, written: np.ndarray) -> np.ndarray:
        """Seconds of each answer [n] to prompts of `read` tokens with `written` ones."""
        return _times(load, np.asarray(read, float), np.asarray(written, float)) @ self.seconds

    def figures(self, load: Load, size: float, read: np.ndarray, written: np.ndarray) -> Figures:
        """What a file of `size` bytes is likely to take on prompts and answers of these lengths."""
        times = self.latency(load, read, written)
        memory = _places(load, size, float((read + written).max())) @ np.array(self.memory)
        if written.any():  # one token more, behind the middle of an answer
            middle = np.array([float(np.mean(written)) / 2]), np.array([float(np.mean(read))])
            more = self.latency(load, middle[1], middle[0] + 1)
            speed = 1 / float((more - self.latency(load, middle[1], middle[0]))[0])
        else:
            speed = 1 / float(np.median(times))
        return Figures(
            parameters=load.parameters,
            bytes=size,
            memory=float(memory),
            latency_p50=float(np.median(times)),
            latency_p95=float(np.quantile(times, 0.95)) * self.jitter,
            speed=speed,
        )


def fit(runs: Sequence[Run]) -> Blocks:
    """The costs that explain these runs best, each relative to what it took; none is negative."""
    return Blocks(
        seconds=_fitted(*_timed(runs)),
        memory=_fitted(
            np.array([_places(run.load, run.bytes, run.read + run.written) for run in runs]),
            np.array([run.memory for run in runs]),
        ),
        jitter=float(np.median([run.latency_p95 / run.latency_p50 for run in runs])),
        error=float(np.median(_left_out(runs))),
    )


def split_by_threads(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Runs of files that one thread answers fastest, and of those that every core works on."""
    small = [run for run in runs if run.bytes < SMALL_FILE]
    return small, [run for run in runs if run.bytes >= SMALL_FILE]


def _left_out(runs: Sequence[Run]) -> list[float]:
    """How far off each network's forecast is, from the others alone if they are many."""
    wrong = []
    loads = dict.fromkeys(run.load for run in runs)
    for load in loads:
        # of a few networks the others would not tell all costs: these know their own
        rest = [run for run in runs if run.load != load or len(loads) < FEW]
        costs = np.array(_fitted(*_timed(rest)))
        for run in runs:
            if run.load == load:
                told = float(_times(load, np.array([run.read]), np.array([run.written]))[0] @ costs)
                wrong.append(abs(told / run.latency_p50 - 1))
    return wrong


def _timed(runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray]:
    parts = [_times(run.load, np.array([run.read]), np.array([run.written]))[0] for run in runs]
    return np.array(parts), np.array([run.latency_p50 for run in runs])


def _times(load: Load, read: np.ndarray, written: np.ndarray) -> np.ndarray:
    """[n, 8]: how often an answer to `read` tokens [n] of `written` [n] has each part.

    An answer, a token written, a layer and a head passed (once for the prompt, then for each
    token), a weight that the prompt and one that a written token is multiplied with, a place that
    the prompt and one that what is written attends to.
    """
    passes = 1 + written
    attended = load.layers * load.width
    return np.stack(
        [
            np.ones_like(read),
            written,
            load.layers * passes,
            load.layers * load.heads * passes,
            read * load.weights,
            written * (load.weights + load.head),
            attended * read**2,
            attended * written * (read + written / 2),
        ],
        axis=1,
    )


def _places(load: Load, size: float, context: float) -> np.ndarray:
    """[3]: a process, a byte of the file, a number that is kept of each token."""
    cells = -(-context // CELLS) * CELLS if load.head else context
    return np.array([1.0, size, cells * load.layers * load.kept])


def _fitted(parts: np.ndarray, taken: np.ndarray) -> list[float]:
    """Costs >= 0 with the least absolute errors, relative to what was taken (nearly).

    Reweighted least squares: one network that was held up says little.
    """
    scale = parts.max(axis=0)
    scale[scale == 0] = 1.0
    relative = parts / scale / taken[:, None]
    weights, costs = np.ones(len(taken)), np.zeros(parts.shape[1])
    for _ in range(STEPS):
        costs, _ = nnls(relative * weights[:, None], weights)
        weights = 1 / np.sqrt(np.maximum(np.abs(relative @ costs - 1), LEAST_ERROR))
    return (costs / scale).tolist()


__all__ = ["Blocks", "Load", "Run", "fit", "load_of", "split_by_threads"]
