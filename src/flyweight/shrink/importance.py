"""Importance of everything that can be cut, from what the user's own prompts activate.

Minitron's measure (arXiv:2407.14679): the mean L2 norm of activations, one forward pass, no
gradients. Blocks are ranked by block influence (ShortGPT, arXiv:2403.03853).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.anatomy import Family, Shape
from flyweight.anatomy.family import parse_dimensions
from flyweight.progress import track
from flyweight.shrink.keep import Keep


@dataclass(frozen=True)
class Importance:
    """Scores, higher is more important.

    L, G, H, D, M: layers, KV groups, query heads in a group, hidden and MLP channels.
    """

    layers: Tensor  # [L] block influence: 1 - cosine(input, output), mean over tokens
    hidden: Tensor  # [D] L2 of the normalised residual stream, mean over norms
    mlp: Tensor  # [L, M] L2 of the channel's activation
    group_heads: Tensor  # [L, G, H] L2 of the head's output

    @property
    def kv_groups(self) -> Tensor:
        """[L, G]: the L2 norm over the heads of a group."""
        return self.group_heads.norm(dim=-1)

    def keep(self, old: Shape, new: Shape) -> Keep:
        """The most important parts of `old` that make a network of shape `new`."""
        layers = top(self.layers, new.layers)
        groups = top(self.kv_groups[layers], new.kv_groups)  # [l, g]
        heads = self.group_heads[layers]  # [l, G, H]
        heads = heads.gather(1, groups[..., None].expand(-1, -1, heads.shape[-1]))  # [l, g, H]
        return Keep(
            layers=layers,
            hidden=top(self.hidden, new.hidden),
            mlp=top(self.mlp[layers], new.mlp),
            kv_groups=groups,
            group_heads=top(heads, new.group_heads),
            old=old,
        )


def top(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest scores along the last axis, in ascending order."""
    return scores.topk(count, dim=-1).indices.sort(dim=-1).values


class _Meter:
    """Sums of squares per channel, over all tokens that count, by module name."""

    def __init__(self) -> None:
        self.squares: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        self.influence: dict[str, float] = defaultdict(float)
        self.tokens = 0
        self.mask: Tensor | None = None  # [B, T] of the batch in hand

    def add(self, name: str, activation: Tensor) -> None:
        """Add activations [B, T, C] of module `name`."""
        self.squares[name] = self.squares[name] + activation[self.mask].float().square().sum(0)

    def add_block(self, name: str, before: Tensor, after: Tensor) -> None:
        """Add a block's input and output [B, T, D]."""
        before, after = before[self.mask].float(), after[self.mask].float()
        self.influence[name] += float((1 - F.cosine_similarity(before, after, dim=-1)).sum())

    def rms(self, name: str) -> Tensor:
        return (self.squares[name] / self.tokens).sqrt()


def measured_modules(family: Family, layers: int) -> dict[str, str]:
    """Modules whose activations tell importance: {name: "hidden" | "mlp" | "heads"}.

    Read off the declaration: what feeds a weight's columns is its axis; a norm feeds hidden.
    """
    found = {}
    for template, spelling in family.parameters.items():
        dimensions = parse_dimensions(spelling)
        module = template.removesuffix(".weight")
        if module.endswith(family.norms):
            kind = "hidden"
        elif dimensions[-1] == ("mlp",):
            kind = "mlp"
        elif len(dimensions) == 2 and "group_heads" in dimensions[-1]:
            kind = "heads"
        else:
            continue
        for layer in range(layers if "{layer}" in module else 1):
            found[module.format(layer=layer)] = kind
    return found


@torch.inference_mode()
def measure_importance(
    model: Any, family: Family, prompts: Sequence[Sequence[int]], batch_size: int = 32
) -> Importance:
    """Importance from one pass over `prompts` (token ids)."""
    shape = family.shape_of(model.config)
    modules = measured_modules(family, shape.layers)
    meter = _Meter()
    hooks = _attach(model, family, shape.layers, modules, meter)
    by_length = sorted(prompts, key=len)
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    try:
        for batch in track(batches, "Measuring importance"):
            longest = max(map(len, batch))
            ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in batch])
            lengths = torch.tensor([len(row) for row in batch])
            meter.mask = torch.arange(longest) < lengths[:, None]
            meter.tokens += int(lengths.sum())
            model.base_model(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return _collect(meter, modules, shape, family)


def _attach(model: Any, family: Family, layers: int, modules: dict[str, str], meter: _Meter):
    hooks = []
    for name, kind in modules.items():
        module = model.get_submodule(name)
        if kind == "hidden":
            hooks.append(
                module.register_forward_hook(
                    lambda _, __, output, name=name: meter.add(name, output)
                )
            )
        else:
            hooks.append(
                module.register_forward_pre_hook(
                    lambda _, inputs, name=name: meter.add(name, inputs[0])
                )
            )
    for layer in range(layers):
        name = f"{family.blocks}.{layer}"

        def on_block(_, inputs, output, name=name):
            after = output[0] if isinstance(output, tuple) else output
            meter.add_block(name, inputs[0], after)

        hooks.append(model.get_submodule(name).register_forward_hook(on_block))
    return hooks


def _collect(meter: _Meter, modules: dict[str, str], shape: Shape, family: Family) -> Importance:
    def stacked(kind: str) -> Tensor:
        return torch.stack([meter.rms(name) for name, k in modules.items() if k == kind])

    heads = stacked("heads").view(
        shape.layers, shape.kv_groups, shape.group_heads, shape.head_dim
    )  # channels of the output projection's input: group by group, head by head
    influence = [meter.influence[f"{family.blocks}.{i}"] for i in range(shape.layers)]
    return Importance(
        layers=torch.tensor(influence) / meter.tokens,
        hidden=stacked("hidden").mean(0),
        mlp=stacked("mlp"),
        group_heads=heads.norm(dim=-1),
    )
