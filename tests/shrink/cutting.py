"""Random cuts of any shape, and their inverse: what tests of cutting share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flyweight.anatomy import Family, Shape
from flyweight.shrink.cut import EXPERTS, is_fixed
from flyweight.shrink.importance import rotary_pairs
from flyweight.shrink.keep import Keep
from flyweight.shrink.scales import scales_of


def random_keep(seed: int, old: Shape, new: Shape, turning: int, pinned: tuple[int, ...]) -> Keep:
    """Random places along every axis, different ones in every layer, group and expert."""
    generator = np.random.default_rng(seed)

    def places(of: int, count: int, *shape: int, always: tuple[int, ...] = ()) -> Tensor:
        rows = []
        for _ in range(math.prod(shape)):
            free = [place for place in range(of) if place not in always]
            drawn = generator.choice(free, count - len(always), replace=False)
            rows.append(sorted({*always, *drawn.tolist()}))
        return torch.tensor(rows).view(*shape, count)

    layers, groups, experts = new.layers, new.kv_groups, new.experts
    of_each = (layers, experts) if experts else (layers,)
    narrower = new.head_dim < old.head_dim
    stride = old.head_dim // new.head_dim
    return Keep(
        layers=places(old.layers, layers, always=pinned),
        hidden=places(old.hidden, new.hidden),
        mlp=places(old.mlp, new.mlp, *of_each),
        kv_groups=places(old.kv_groups, groups, layers),
        group_heads=places(old.group_heads, new.group_heads, layers, groups),
        head_dim=rotary_pairs(old.head_dim, turning, stride) if narrower else None,
        value_dim=places(old.head_dim, new.head_dim, layers, groups) if narrower else None,
        experts=places(old.experts, experts, layers) if experts else None,
        vocabulary=places(old.vocabulary, new.vocabulary),
        old=old,
        **(random_eyes(places, old, new) if old.encoder_layers else {}),
    )


def random_eyes(places: Any, old: Shape, new: Shape, over: int = 2) -> dict[str, Tensor]:
    """Random places in an encoder with `over` blocks over all tiles, its first block among them."""
    return {
        "seen": places(old.hidden, new.hidden),
        "encoder_layers": places(old.encoder_layers, new.encoder_layers, always=(0,)),
        "encoder_mlp": places(old.encoder_mlp, new.encoder_mlp, new.encoder_layers),
        "global_mlp": places(old.encoder_mlp, new.encoder_mlp, over),
    }


def kept_places(
    family: Family, name: str, keep: Keep, layer: int | None, shape: tuple[int, ...]
) -> Tensor | None:
    """bool `shape`: what of a parameter stays; None if its block goes."""
    place = family.spell(name)
    if place.layer is not None:
        layer = keep.place(place.layer, place.block_axis)
        if layer is None:
            return None
    if place.dimensions[0] == EXPERTS and len(shape) > 2:
        stays = torch.zeros(shape, dtype=torch.bool)
        for new, old in enumerate(keep.index(EXPERTS, layer).tolist()):
            stays[old] = _box(place.dimensions[1:], keep, layer, new, shape[1:])
        return stays
    return _box(place.dimensions, keep, layer, None, shape)


def _box(
    dimensions: Any, keep: Keep, layer: int | None, expert: int | None, shape: tuple[int, ...]
) -> Tensor:
    stays = torch.ones(shape, dtype=torch.bool)
    for number, dimension in enumerate(dimensions):
        if is_fixed(dimension):
            continue
        along = torch.zeros(shape[number], dtype=torch.bool)
        along[keep.index(dimension, layer, expert)] = True
        stays &= along.view(*[1] * number, -1, *[1] * (len(shape) - number - 1))
    return stays


@torch.no_grad()
def widen(small: Any, big: Any, family: Family, keep: Keep) -> Any:
    """`big` with `small` written into it where `keep` keeps, and zeros elsewhere.

    It computes what `small` computes, if the factors of the cut are right: they are undone here.
    """
    scales = scales_of(family, big.config, keep)
    of, into = small.state_dict(), big.state_dict()
    for name, tensor in into.items():
        if name == family.head and family.is_tied(big.config):
            continue  # the same tensor as the input embedding
        place = family.spell(name)
        stays = kept_places(family, name, keep, None, tuple(tensor.shape))
        norm = family.norms.get(place.template.rpartition(".")[0])
        offset = norm.offset if norm is not None and name.endswith("weight") else 0.0
        tensor.fill_(-offset)
        if stays is None:
            continue
        layer = None if place.layer is None else keep.layers.tolist().index(place.layer)
        part = of[place.template.format(layer=layer)]
        factor = scales.apply(torch.ones_like(part) - offset, place) + offset
        tensor[stays] = ((part + offset) / factor - offset).flatten()
    return big


@torch.no_grad()
def silence(big: Any, family: Family, keep: Keep) -> Any:
    """`big` with everything that does not stay set to zero; blocks that go add nothing."""
    for name, tensor in big.state_dict().items():
        stays = kept_places(family, name, keep, None, tuple(tensor.shape))
        tensor[...] = 0 if stays is None else torch.where(stays, tensor, 0)
    return big


@torch.no_grad()
def mask(big: Any, family: Family, keep: Keep) -> Any:
    """`big` with everything that does not stay set to zero, and the blocks that go taken out."""
    for name, tensor in big.state_dict().items():
        stays = kept_places(family, name, keep, None, tuple(tensor.shape))
        if stays is None:
            continue
        norm = family.norms.get(family.spell(name).template.rpartition(".")[0])
        offset = norm.offset if norm is not None and name.endswith("weight") else 0.0
        tensor[~stays] = -offset
    blocks = big.get_submodule(family.blocks)
    kept = [block for place, block in enumerate(blocks) if place in keep.layers.tolist()]
    parent, _, attribute = family.blocks.rpartition(".")
    setattr(big.get_submodule(parent), attribute, torch.nn.ModuleList(kept))
    big.config.num_hidden_layers = len(kept)
    for name in family.per_layer:
        listed = getattr(big.config, name, None)
        if listed:
            setattr(big.config, name, [listed[layer] for layer in keep.layers.tolist()])
    return big
