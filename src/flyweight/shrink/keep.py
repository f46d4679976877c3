"""What stays when a network is cut: indices along every axis."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flyweight.anatomy import Shape
from flyweight.anatomy.family import Dimension


@dataclass(frozen=True)
class Keep:
    """Indices that stay, in ascending order. L, G, H: layers, groups, heads a group that stay.

    `layers` [L] are blocks of the original; the per-layer tensors follow their order.
    """

    layers: Tensor  # [L]
    hidden: Tensor  # [D]
    mlp: Tensor  # [L, M]
    kv_groups: Tensor  # [L, G]
    group_heads: Tensor  # [L, G, H], within the group
    old: Shape

    @property
    def shape(self) -> Shape:
        """The shape of what stays."""
        _, groups, heads = self.group_heads.shape
        return self.old.with_sizes(
            layers=len(self.layers),
            hidden=len(self.hidden),
            mlp=self.mlp.shape[1],
            heads=groups * heads,
            kv_groups=groups,
        )

    def index(self, dimension: Dimension, layer: int | None) -> Tensor:
        """Flat indices into a dimension that runs over these axes; `layer` counts what stays."""
        flat = torch.zeros(1, dtype=torch.long)
        for axis in dimension:
            size = self.old.size(axis)
            if axis == "group_heads":
                # which heads stay differs from group to group
                heads = self.group_heads[layer]  # [G, H]
                flat = (flat[:, None] * size + heads).reshape(-1)
                continue
            kept = self._kept(axis, layer, size)
            flat = (flat[:, None] * size + kept[None, :]).reshape(-1)
        return flat

    def _kept(self, axis: str, layer: int | None, size: int) -> Tensor:
        if axis == "hidden":
            return self.hidden
        if axis in ("mlp", "kv_groups"):
            return getattr(self, axis)[layer]
        return torch.arange(size)  # head_dim, vocabulary: whole


def keep_all(shape: Shape) -> Keep:
    """Everything stays."""
    layers, groups = shape.layers, shape.kv_groups
    return Keep(
        layers=torch.arange(layers),
        hidden=torch.arange(shape.hidden),
        mlp=torch.arange(shape.mlp).repeat(layers, 1),
        kv_groups=torch.arange(groups).repeat(layers, 1),
        group_heads=torch.arange(shape.group_heads).repeat(layers, groups, 1),
        old=shape,
    )
