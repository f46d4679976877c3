"""Importance of everything that can be cut, from what the user's own prompts activate.

Minitron's measure (arXiv:2407.14679): the mean L2 norm of activations, one forward pass, no
gradients. Blocks are ranked by block influence (ShortGPT, arXiv:2403.03853).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from flyweight.anatomy import Shape
from flyweight.shrink.keep import Keep

_SCORES = ("layers", "hidden", "mlp", "values")


@dataclass(frozen=True)
class Importance:
    """Scores, higher is more important.

    L, G, H, d, D, M: layers, KV groups, query heads in a group, dimensions of a head, hidden and
    MLP channels.
    """

    layers: Tensor  # [L] block influence: 1 - cosine(input, output), mean over tokens
    hidden: Tensor  # [D] L2 of the normalised residual stream, mean over norms
    mlp: Tensor  # [L, M] L2 of the channel's activation
    values: Tensor  # [L, G, H, d] L2 of the head's output
    turning: int  # dimensions of a head that RoPE turns
    pinned: tuple[int, ...] = ()  # blocks that must stay

    @property
    def group_heads(self) -> Tensor:
        """[L, G, H]: the L2 norm over the dimensions of a head."""
        return self.values.norm(dim=-1)

    @property
    def kv_groups(self) -> Tensor:
        """[L, G]: the L2 norm over the heads of a group."""
        return self.group_heads.norm(dim=-1)

    def keep(self, old: Shape, new: Shape) -> Keep:
        """The most important parts of `old` that make a network of shape `new`."""
        influence = self.layers.clone()
        influence[list(self.pinned)] = torch.inf
        layers = top(influence, new.layers)
        groups = top(self.kv_groups[layers], new.kv_groups)  # [l, g]
        heads = top(picked(self.group_heads[layers], groups), new.group_heads)  # [l, g, h]
        head_dim = value_dim = None
        if new.head_dim < old.head_dim:
            head_dim = rotary_pairs(old.head_dim, self.turning, old.head_dim // new.head_dim)
            values = picked(picked(self.values[layers], groups).flatten(0, 1), heads.flatten(0, 1))
            value_dim = top(values.norm(dim=-2), new.head_dim).unflatten(0, groups.shape)
        return Keep(
            layers=layers,
            hidden=top(self.hidden, new.hidden),
            mlp=top(self.mlp[layers], new.mlp),
            kv_groups=groups,
            group_heads=heads,
            old=old,
            head_dim=head_dim,
            value_dim=value_dim,
        )

    def save(self, path: Path) -> None:
        """Write it as safetensors."""
        told = json.dumps({"turning": self.turning, "pinned": self.pinned})
        save_file(
            {name: getattr(self, name).contiguous() for name in _SCORES}, path, {"told": told}
        )

    @classmethod
    def load(cls, path: Path) -> Importance:
        """What `save` wrote."""
        with safe_open(path, framework="pt") as file:
            told = json.loads(file.metadata()["told"])
            scores = {name: file.get_tensor(name) for name in _SCORES}
        return cls(**scores, turning=told["turning"], pinned=tuple(told["pinned"]))


def top(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest scores along the last axis, in ascending order."""
    return scores.topk(count, dim=-1).indices.sort(dim=-1).values


def picked(scores: Tensor, places: Tensor) -> Tensor:
    """Scores [N, A, ...] at `places` [N, a] of their second axis."""
    index = places.view(*places.shape, *[1] * (scores.dim() - 2))
    return scores.gather(1, index.expand(*places.shape, *scores.shape[2:]))


def rotary_pairs(width: int, turning: int, stride: int) -> Tensor:
    """Dimensions of a head [width / stride] that stay: every `stride`-th RoPE pair.

    RoPE turns dimension i with i + R/2, R of them turning, at the rate theta^(-2i/R). In a head
    `stride` times narrower pair j turns at the rate of pair j x stride here: those stay exact. Of
    the dimensions that do not turn every `stride`-th stays too.
    """
    first = torch.arange(0, turning // 2, stride)
    return torch.cat([first, first + turning // 2, torch.arange(turning, width, stride)])
