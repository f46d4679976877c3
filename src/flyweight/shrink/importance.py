"""Importance of everything that can be cut, from what the user's own prompts activate.

One forward pass, no gradients: hidden channels by the L2 norm of activations (Minitron,
arXiv:2407.14679), MLP channels and values by that times the norm of the weight's column that reads
them (Wanda's product, arXiv:2306.11695), blocks by block influence (ShortGPT, arXiv:2403.03853).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from flyweight.anatomy import Shape
from flyweight.shrink.keep import Keep

_SCORES = ("layers", "hidden", "mlp", "values")
_EYES = ("seen", "encoder_layers", "encoder_mlp", "global_mlp")
_PERHAPS = ("experts", "heads", "groups", *_EYES)
_TAYLOR = "taylor."  # what the names of first-order scores begin with in a file


@dataclass(frozen=True)
class Importance:
    """Scores, higher is more important; `taylor` holds the first-order ones, where asked for.

    L, G, H, d, D, M, E: layers, KV groups, query heads in a group, dimensions of a head, hidden and
    MLP channels, experts; e, g, m: an encoder's layers within tiles and over them, and its MLP's
    channels. Said of activations; what first-order scores are tells taylor.py.
    """

    layers: Tensor  # [L] block influence: 1 - cosine(input, output), mean over tokens
    hidden: Tensor  # [D] L2 of the normalised residual stream, mean over norms
    mlp: Tensor  # [L, M], of a mixture [L, E, M]: L2 of what the channel adds to the stream
    values: Tensor  # [L, G, H, d] L2 of what a dimension of the head adds to the stream
    turning: int  # dimensions of a head that RoPE turns
    pinned: tuple[int, ...] = ()  # blocks that must stay
    experts: Tensor | None = None  # [L, E] L2 of what the expert adds, mean over all tokens
    heads: Tensor | None = None  # [L, G, H]; None: taken from `values`
    groups: Tensor | None = None  # [L, G]; None: taken from `heads`
    seen: Tensor | None = None  # [D] L2 of what a picture's channel adds to keys and values
    encoder_layers: Tensor | None = None  # [e] block influence, summed over patches
    encoder_mlp: Tensor | None = None  # [e, m] as `mlp`
    global_mlp: Tensor | None = None  # [g, m]
    taylor: Importance | None = None

    @property
    def group_heads(self) -> Tensor:
        """[L, G, H]: of whole heads; the L2 norm over their dimensions if nothing else is known."""
        return self.values.norm(dim=-1) if self.heads is None else self.heads

    @property
    def kv_groups(self) -> Tensor:
        """[L, G]: of whole groups; the L2 norm over their heads if nothing else is known."""
        return self.group_heads.norm(dim=-1) if self.groups is None else self.groups

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
        mlp, experts = self.mlp[layers], None
        if self.experts is not None:
            experts = top(self.experts[layers], new.experts)  # [l, e]
            mlp = picked(mlp, experts)
        return Keep(
            layers=layers,
            hidden=top(self.hidden, new.hidden),
            mlp=top(mlp, new.mlp),
            kv_groups=groups,
            group_heads=heads,
            old=old,
            head_dim=head_dim,
            value_dim=value_dim,
            experts=experts,
            **self._eyes(new),
        )

    def _eyes(self, new: Shape) -> dict[str, Any]:
        """What stays of an encoder and of what it says, nothing for a model without one."""
        if self.encoder_layers is None or self.encoder_mlp is None or self.seen is None:
            return {}
        influence = self.encoder_layers.clone()
        influence[0] = torch.inf  # features are taken behind blocks: one is before them all
        layers = top(influence, new.encoder_layers)
        kept = {"seen": top(self.seen, new.hidden), "encoder_layers": layers}
        kept["encoder_mlp"] = top(self.encoder_mlp[layers], new.encoder_mlp)
        if self.global_mlp is not None:
            kept["global_mlp"] = top(self.global_mlp, new.encoder_mlp)
        return kept

    def save(self, path: Path) -> None:
        """Write it as safetensors."""
        told = json.dumps({"turning": self.turning, "pinned": self.pinned})
        save_file(self._tensors(), path, {"told": told})

    def _tensors(self, prefix: str = "") -> dict[str, Tensor]:
        found = {name: getattr(self, name) for name in (*_SCORES, *_PERHAPS)}
        found = {
            prefix + name: each.contiguous() for name, each in found.items() if each is not None
        }
        return found | ({} if self.taylor is None else self.taylor._tensors(_TAYLOR))

    @classmethod
    def load(cls, path: Path) -> Importance:
        """What `save` wrote."""
        with safe_open(path, framework="pt") as file:
            told = json.loads(file.metadata()["told"])
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        rest = {"turning": told["turning"], "pinned": tuple(told["pinned"])}
        first_order = {
            name.removeprefix(_TAYLOR): each
            for name, each in found.items()
            if name.startswith(_TAYLOR)
        }
        scores = {name: each for name, each in found.items() if not name.startswith(_TAYLOR)}
        return cls(**scores, **rest, taylor=cls(**first_order, **rest) if first_order else None)


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
