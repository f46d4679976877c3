"""How parameters become GGUF tensors: names, shares of rows, and what is changed on the way.

Hugging Face's RoPE turns dimension i of a head with i + d/2. Some of llama.cpp's graphs turn
neighbours instead: there the rows of queries and keys are interleaved on the way.
Names and keys: the GGUF specification of the ggml project and the `gguf` package's constants.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flyweight.errors import UnsupportedFamily

_LAYER = re.compile(r"\.(\d+)\.")
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
INPUT = "token_embd.weight"
OUTPUT = "output.weight"


@dataclass(frozen=True)
class Part:
    """Rows of a parameter that are a GGUF tensor, or one expert's share of one.

    Of `of` equal shares of the rows they are `own`, after `before`.
    """

    tensor: str
    template: str  # the tensor's name with {i} for the layer
    expert: int | None = None
    before: int = 0
    own: int = 1
    of: int = 1

    def take(self, weight: Tensor) -> Tensor:
        """A view of these rows; experts that lie in one tensor [E, rows, columns] stay together."""
        dimension = max(weight.ndim - 2, 0)
        share = weight.shape[dimension] // self.of
        return weight.narrow(dimension, self.before * share, self.own * share)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of `take` of a weight of this shape."""
        dimension = max(len(shape) - 2, 0)
        rows = shape[dimension] // self.of * self.own
        return (*shape[:dimension], rows, *shape[dimension + 1 :])


@dataclass(frozen=True)
class GgufMap:
    """One family's way into GGUF; in names `{i}` stands for the layer, `{e}` for the expert.

    A parameter that holds several tensors names them in the order of their rows, and `shares` the
    config's counts of those (one each where it says nothing).
    """

    architecture: str
    tensors: Mapping[str, str | tuple[str, ...]]  # parameter -> GGUF tensors
    metadata: Callable[[Any], dict[str, Any]]  # HF config -> keys without the architecture's prefix
    shares: Mapping[str, str] = field(default_factory=dict)  # GGUF tensor -> field of the config
    interleaved: Mapping[str, str] = field(default_factory=dict)  # GGUF tensor -> config's heads
    turning: Callable[[Any], int | None] = lambda config: None  # dimensions of a head; None: all
    offsets: Mapping[str, float] = field(default_factory=dict)  # GGUF tensor -> added first
    factors: Callable[[Any], Mapping[str, Tensor | float]] = lambda config: {}  # a row's, or of all
    computed: Callable[[Any], dict[str, Tensor]] = lambda config: {}  # tensors that no file holds
    own_head: bool = False  # the graph wants an output matrix even where it is the input's
    at_high_precision: tuple[str, ...] = (INPUT, OUTPUT)
    at_full_precision: tuple[str, ...] = (".ffn_gate_inp.weight",)  # endings; the choice of experts
    ignored: tuple[str, ...] = (".rotary_emb.inv_freq",)  # endings of buffers, not weights

    def parts(self, parameter: str, config: Any) -> tuple[Part, ...]:
        """Where a parameter goes: nowhere if it is left out. Raises UnsupportedFamily."""
        if parameter.endswith(self.ignored):
            return ()
        parameter_template, layer, expert = _template(parameter)
        if parameter_template not in self.tensors:
            raise UnsupportedFamily(
                f"{parameter}: the GGUF architecture {self.architecture!r} has no place for this "
                "tensor; remove it from the checkpoint or export without GGUF"
            )
        named = self.tensors[parameter_template]
        named = (named,) if isinstance(named, str) else named
        if config.tie_word_embeddings and named == (OUTPUT,):
            return ()
        if config.tie_word_embeddings and named == (INPUT,) and self.own_head:
            return Part(INPUT, INPUT), Part(OUTPUT, OUTPUT)
        counts = [1]
        if len(named) > 1:
            fields = [self.shares.get(name) for name in named]
            counts = [getattr(config, field) if field else 1 for field in fields]
        return tuple(
            Part(name.format(i=layer), name, expert, sum(counts[:place]), own, sum(counts))
            for place, (name, own) in enumerate(zip(named, counts, strict=True))
        )

    def change(self, template: str, config: Any) -> tuple[float, Tensor | float]:
        """What is added to a tensor's entries, and by what its rows are multiplied after that."""
        return self.offsets.get(template, 0.0), self.factors(config).get(template, 1.0)

    def transform(self, part: Part, weight: Tensor, config: Any) -> Tensor:
        """The rows that `part` takes as llama.cpp wants them; the shape stays as it is."""
        offset, factor = self.change(part.template, config)
        weight = (weight + offset) * by_row(factor, weight)
        heads = self.interleaved.get(part.template)
        if heads is None:
            return weight
        return interleave(weight, getattr(config, heads), self.turning(config))

    def restore(self, part: Part, tensor: Tensor, config: Any) -> Tensor:
        """What `transform` made a tensor from."""
        heads = self.interleaved.get(part.template)
        if heads is not None:
            tensor = separate(tensor, getattr(config, heads), self.turning(config))
        offset, factor = self.change(part.template, config)
        return tensor / by_row(factor, tensor) - offset


def _template(parameter: str) -> tuple[str, str, int | None]:
    """A parameter's name with {i} and {e} in it, its layer and its expert."""
    layer = expert = None
    match = _LAYER.search(parameter)
    if match:
        layer = match.group(1)
        parameter = f"{parameter[: match.start()]}.{{i}}.{parameter[match.end() :]}"
    match = _EXPERT.search(parameter)
    if match:
        expert = int(match.group(1))
        parameter = f"{parameter[: match.start()]}.experts.{{e}}.{parameter[match.end() :]}"
    return parameter, layer or "", expert


def by_row(factor: Tensor | float, weight: Tensor) -> Tensor | float:
    """A factor for each row [R], made to multiply a weight [R, ...]."""
    return factor.view(-1, *[1] * (weight.ndim - 1)) if isinstance(factor, Tensor) else factor


def interleave(weight: Tensor, heads: int, turning: int | None = None) -> Tensor:
    """Rows (or a bias's entries) of each head from halves to neighbouring pairs; same shape.

    Only the first `turning` dimensions of a head turn, all where it is None; the others follow.
    """
    rows = weight.reshape(heads, -1, *weight.shape[1:])  # [H, D, ...]
    turning = rows.shape[1] if turning is None else turning
    halves = rows[:, :turning].reshape(heads, 2, -1, *weight.shape[1:])  # [H, 2, R/2, ...]
    pairs = halves.transpose(1, 2).reshape(heads, turning, *weight.shape[1:])
    return torch.cat([pairs, rows[:, turning:]], 1).reshape(weight.shape)


def separate(weight: Tensor, heads: int, turning: int | None = None) -> Tensor:
    """What `interleave` took: rows of each head from neighbouring pairs to halves."""
    rows = torch.arange(len(weight))
    return weight[interleave(rows, heads, turning).argsort()]


__all__ = ["OUTPUT", "GgufMap", "Part", "interleave", "separate"]
