"""What stays when a network is cut: indices along every axis."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flyweight.anatomy import AXES, Shape
from flyweight.anatomy.family import Dimension, Term
from flyweight.anatomy.shape import is_number


@dataclass(frozen=True)
class Keep:
    """Indices that stay, in ascending order; None where an axis stays whole.

    L, G, H, d, E, e, g: layers, groups, heads a group, dimensions a head, experts that stay, an
    encoder's layers within tiles and over them. `layers` are blocks of the original; what is chosen
    per layer follows their order. `tied` makes the output embedding the input's.
    """

    layers: Tensor  # [L]
    hidden: Tensor  # [D]
    mlp: Tensor  # [L, M], of a mixture [L, E, M]
    kv_groups: Tensor  # [L, G]
    group_heads: Tensor  # [L, G, H], within the group
    old: Shape
    head_dim: Tensor | None = None  # [d], the same everywhere
    value_dim: Tensor | None = None  # [L, G, d]
    experts: Tensor | None = None  # [L, E]
    seen: Tensor | None = None  # [D]
    encoder_layers: Tensor | None = None  # [e]
    encoder_mlp: Tensor | None = None  # [e, M]
    global_mlp: Tensor | None = None  # [g, M]
    vocabulary: Tensor | None = None  # [V]
    tied: bool = False

    @property
    def shape(self) -> Shape:
        """The shape of what stays."""
        _, groups, heads = self.group_heads.shape
        return self.old.with_sizes(
            layers=len(self.layers),
            hidden=len(self.hidden),
            mlp=self.mlp.shape[-1],
            heads=groups * heads,
            kv_groups=groups,
            head_dim=None if self.head_dim is None else len(self.head_dim),
            experts=None if self.experts is None else self.experts.shape[1],
            vocabulary=None if self.vocabulary is None else len(self.vocabulary),
            encoder_layers=None if self.encoder_layers is None else len(self.encoder_layers),
            encoder_mlp=None if self.encoder_mlp is None else self.encoder_mlp.shape[1],
        )

    def place(self, layer: int, counted: str) -> int | None:
        """The new number of a block of the original, along the axis that counts it; None: it goes.

        Blocks along an axis that is never cut keep theirs.
        """
        kept = getattr(self, counted, None)
        if kept is None:
            return layer
        found = (kept == layer).nonzero()
        return int(found) if len(found) else None

    def index(self, dimension: Dimension, layer: int | None, expert: int | None = None) -> Tensor:
        """Flat indices into a dimension; `layer` and `expert` count what stays."""
        parts, start = [], 0
        for term in dimension:
            parts.append(self._flat(term, layer, expert) + start)
            size = 1
            for axis in term:
                size *= self.old.size(axis)
            start += size
        return torch.cat(parts)

    def _flat(self, term: Term, layer: int | None, expert: int | None) -> Tensor:
        """Flat indices of a term, in [G, H, d] or one of its faces, laid out."""
        flat = torch.zeros(1, 1, 1, dtype=torch.long)
        for axis in term:
            flat = flat * self.old.size(axis) + self._kept(axis, layer, expert)
        return flat.reshape(-1)

    def _kept(self, axis: str, layer: int | None, expert: int | None) -> Tensor:
        """What stays of an axis, so shaped that groups, heads and dimensions multiply out."""
        if axis == "mlp":
            kept = self.mlp[layer]
            return kept if expert is None else kept[expert]
        if axis == "kv_groups":
            return self.kv_groups[layer][:, None, None]
        if axis == "group_heads":
            return self.group_heads[layer][:, :, None]
        found = None if is_number(axis) else getattr(self, axis)
        if found is None:
            return torch.arange(self.old.size(axis))
        if axis == "value_dim":
            return found[layer][:, None, :]
        return found[layer] if axis in ("experts", "encoder_mlp", "global_mlp") else found


def keep_all(shape: Shape) -> Keep:
    """Everything stays."""
    layers, groups, experts = shape.layers, shape.kv_groups, shape.experts
    mlp = torch.arange(shape.mlp)
    return Keep(
        layers=torch.arange(layers),
        hidden=torch.arange(shape.hidden),
        mlp=mlp.repeat(layers, experts, 1) if experts else mlp.repeat(layers, 1),
        kv_groups=torch.arange(groups).repeat(layers, 1),
        group_heads=torch.arange(shape.group_heads).repeat(layers, groups, 1),
        old=shape,
    )


def is_fixed(dimension: Dimension) -> bool:
    """Whether a dimension runs over no axis that can be cut."""
    return not any(axis in AXES for term in dimension for axis in term)
