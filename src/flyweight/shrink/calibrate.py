"""Measuring importance: one forward pass over the user's own prompts, read by hooks.

The modules are read off the family's declaration: what feeds a weight's columns is its axis.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.anatomy import Family, Shape
from flyweight.anatomy.family import Dimension, Term, parse_dimensions
from flyweight.progress import track
from flyweight.shrink.importance import Importance

VALUES: Term = ("kv_groups", "group_heads", "value_dim")
HIDDEN: Dimension = (("hidden",),)
MLP: Dimension = (("mlp",),)


class _Meter:
    """Sums over all tokens that count, by module name."""

    def __init__(self) -> None:
        self.squares: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        self.influence: dict[str, float] = defaultdict(float)
        self.tokens = 0
        self.mask: Tensor | None = None  # [B, T] of the batch in hand

    def add(self, name: str, activation: Tensor) -> None:
        """Add activations [B, T, C] of module `name`."""
        self.squares[name] = self.squares[name] + self._counted(activation).square().sum(0)

    def add_block(self, name: str, before: Tensor, after: Tensor) -> None:
        """Add a block's input and output [B, T, D]."""
        similar = F.cosine_similarity(self._counted(before), self._counted(after), dim=-1)
        self.influence[name] += float((1 - similar).sum())

    def _counted(self, activation: Tensor) -> Tensor:
        """[N, C] of the tokens that count."""
        return activation[self.mask].float().flatten(0, -2)

    def rms(self, name: str) -> Tensor:
        return (self.squares[name] / self.tokens).sqrt()


@dataclass(frozen=True)
class _Reading:
    """A module whose activations are read: its name, and the declared name and dimension."""

    name: str
    template: str
    dimension: Dimension


def _readings(family: Family, config: Any, layers: int) -> Iterator[_Reading]:
    """Modules whose activations tell importance.

    Read off the declaration: what feeds a weight's columns is its axis; a norm has its own.
    """
    for template, spelling in family.parameters.items():
        dimensions = parse_dimensions(spelling)
        module = template.removesuffix(".weight")
        if module == template:
            continue
        feeds = dimensions[-1] == MLP or dimensions[-1] == (VALUES,)
        over_hidden = module in family.norms and dimensions[0] == HIDDEN
        if over_hidden or (len(dimensions) == 2 and feeds):
            for layer in range(layers if "{layer}" in module else 1):
                if family.has(template, config, layer):
                    yield _Reading(module.format(layer=layer), module, dimensions[-1])


@torch.inference_mode()
def measure_importance(
    model: Any, family: Family, prompts: Sequence[Sequence[int]], batch_size: int = 32
) -> Importance:
    """Importance from one pass over `prompts` (token ids)."""
    shape = family.shape_of(model.config)
    readings = list(_readings(family, model.config, shape.layers))
    meter = _Meter()
    hooks = _attach(model, family, shape.layers, readings, meter)
    by_length = sorted(prompts, key=len)
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    try:
        for batch in track(batches, "Measuring importance"):
            longest = max(map(len, batch))
            ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in batch])
            lengths = torch.tensor([len(row) for row in batch])
            meter.mask = torch.arange(longest) < lengths[:, None]
            meter.tokens += int(lengths.sum())
            model.base_model(input_ids=ids, **family.inputs(meter.mask))
    finally:
        for hook in hooks:
            hook.remove()
    return _collect(meter, readings, shape, family, model.config)


def _attach(
    model: Any, family: Family, layers: int, readings: Sequence[_Reading], meter: _Meter
) -> list[Any]:
    hooks = []
    for reading in readings:
        of_norm = reading.template in family.norms

        def on_forward(_, inputs, output, name=reading.name, of_norm=of_norm):
            meter.add(name, output if of_norm else inputs[0])

        hooks.append(model.get_submodule(reading.name).register_forward_hook(on_forward))
    for layer in range(layers):
        name = f"{family.blocks}.{layer}"

        def on_block(_, inputs, output, name=name):
            after = output[0] if isinstance(output, tuple) else output
            meter.add_block(name, inputs[0], after)

        hooks.append(model.get_submodule(name).register_forward_hook(on_block))
    return hooks


def _collect(
    meter: _Meter, readings: Sequence[_Reading], shape: Shape, family: Family, config: Any
) -> Importance:
    def stacked(dimension: Dimension) -> Tensor:
        found = [each.name for each in readings if each.dimension == dimension]
        return torch.stack([meter.rms(name) for name in found])

    influence = [meter.influence[f"{family.blocks}.{i}"] for i in range(shape.layers)]
    heads = (shape.layers, shape.kv_groups, shape.group_heads, shape.head_dim)
    return Importance(
        layers=torch.tensor(influence) / meter.tokens,
        hidden=stacked(HIDDEN).mean(0),
        mlp=stacked(MLP),
        values=stacked((VALUES,)).view(heads),
        turning=family.turning(config),
        pinned=family.pinned,
    )
