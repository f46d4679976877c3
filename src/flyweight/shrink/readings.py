"""Where importance is read, off the declaration: what feeds a weight's columns is its axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.anatomy import AXES, Family
from flyweight.anatomy.family import Dimension, Term, parse_dimensions

VALUES: Term = ("kv_groups", "group_heads", "value_dim")
HIDDEN: Dimension = (("hidden",),)
MLP: Dimension = (("mlp",),)
EXPERTS: Dimension = (("experts",),)
SEEN: Dimension = (("seen",),)
INPUT_AXES: dict[Dimension, str] = {
    MLP: "mlp",
    (VALUES,): "values",
    SEEN: "seen",
    (("encoder_mlp",),): "encoder_mlp",
    (("global_mlp",),): "global_mlp",
}


@dataclass(frozen=True)
class Reading:
    """A module and the axis that is read there.

    "hidden": what a norm says. "mlp", "values" and others of INPUT_AXES: what goes into the weight
    `outward`, which carries it to the residual stream (of "seen", to keys and values). "experts":
    all experts of a block in one module, with the names of their weights into and out of the MLP
    channels. "layers", "encoder_layers": a block, before and after.
    """

    axis: str
    module: str
    inward: str = ""
    outward: str = ""


def readings_of(family: Family, config: Any) -> list[Reading]:
    """Every place to read; those of one axis in the order of the blocks."""
    shape, placed = family.shape_of(config), []
    for template, spelling in family.parameters.items():
        for layer in family.layers_with(template, shape, config):
            reading = _reading(family, template, parse_dimensions(spelling), layer)
            placed += [] if reading is None else [(layer, reading)]
    # blocks of two kinds have weights of other names that run over one axis
    found = [reading for _, reading in sorted(placed, key=lambda each: each[0])]
    for blocks, axis in {family.blocks: "layers", **family.other_blocks}.items():
        if axis in AXES:
            found += [Reading(axis, f"{blocks}.{layer}") for layer in range(shape.size(axis))]
    return found


def _reading(
    family: Family, template: str, dimensions: tuple[Dimension, ...], layer: int
) -> Reading | None:
    """What is read at this parameter of a block, if anything."""
    module, _, name = template.rpartition(".")
    place = module.format(layer=layer)
    if name == "weight" and module in family.norms:
        return Reading("hidden", place) if dimensions[0] == HIDDEN else None
    if name == "weight" and len(dimensions) == 2 and dimensions[1] in INPUT_AXES:
        return Reading(INPUT_AXES[dimensions[1]], place, outward=name)
    if dimensions[0] == EXPERTS and dimensions[-1] == MLP:
        return Reading("experts", place, inward=_inward(family, module), outward=name)
    return None


def _inward(family: Family, module: str) -> str:
    """The name of the weight from hidden channels into the MLP channels of all experts."""
    [name] = [
        template.removeprefix(f"{module}.")
        for template, spelling in family.parameters.items()
        if template.startswith(f"{module}.") and parse_dimensions(spelling)[-1] == HIDDEN
    ]
    return name


@dataclass(frozen=True)
class Routed:
    """What one expert does with the n tokens that are sent to it."""

    expert: int
    tokens: Tensor  # int64 [n]: their places
    shares: Tensor  # [n]: the router's weights
    inner: Tensor  # [n, M]: what feeds its weight outward
    outward: Tensor  # [D, M]: that weight


def routed(
    module: Any, reading: Reading, x: Tensor, index: Tensor, shares: Tensor, counts: Tensor
) -> Iterator[Routed]:
    """Each expert of a fused module at work, worked out anew: the module shows no insides.

    `x` [N, D]; `index` and `shares` [N, K] of the experts that each token is sent to; `counts` bool
    [N] of the tokens that count. Transformers keeps the activation in `_apply_gate`.
    """
    inward, outward = getattr(module, reading.inward), getattr(module, reading.outward)
    for expert in index[counts].unique().tolist():
        tokens, place = torch.where((index == expert) & counts[:, None])
        inner = module._apply_gate(F.linear(x[tokens], inward[expert]))
        yield Routed(expert, tokens, shares[tokens, place], inner, outward[expert])
