"""Cutting a network down to what stays, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.initialization import no_init_weights

from flyweight.anatomy import Family
from flyweight.anatomy.family import Dimension, Place
from flyweight.errors import UnsupportedFamily
from flyweight.mapped import plain
from flyweight.shrink.keep import Keep, is_fixed
from flyweight.shrink.scales import scales_of
from flyweight.shrink.stored import StoredTensor

EXPERTS: Dimension = (("experts",),)


def slice_tensor(
    tensor: Tensor | StoredTensor,
    dimensions: tuple[Dimension, ...],
    keep: Keep,
    layer: int | None,
    expert: int | None = None,
) -> Tensor:
    """The part of one parameter that stays; `layer` and `expert` count those that stay."""
    if dimensions[0] == EXPERTS and len(dimensions) > 2:
        # each expert keeps channels of its own
        of_each = [
            slice_tensor(tensor[old], dimensions[1:], keep, layer, new)
            for new, old in enumerate(keep.index(EXPERTS, layer).tolist())
        ]
        return torch.stack(of_each)
    for number, dimension in enumerate(dimensions):
        if is_fixed(dimension):
            continue
        index = keep.index(dimension, layer, expert)
        if len(index) < tensor.shape[number]:
            tensor = tensor.index_select(number, index)
    return plain(tensor.contiguous())


def place_of(family: Family, name: str) -> Place:
    """What the family declares of a parameter; UnsupportedFamily if nothing."""
    try:
        return family.spell(name)
    except KeyError:
        raise UnsupportedFamily(
            f"the model has a parameter {name!r} that the family {family.name!r} does not "
            "declare. Use a model without such additions."
        ) from None


def new_name(family: Family, place: Place, keep: Keep) -> tuple[str, int | None, int | None] | None:
    """What a parameter is called after the cut, its new block and expert; None if it goes."""
    layer = expert = None
    if place.template == family.head and keep.tied:
        return None
    if place.layer is not None:
        layer = keep.place(place.layer, place.block_axis)
        if layer is None:
            return None
    if place.expert is not None:
        kept = keep.index(EXPERTS, layer).tolist()
        if place.expert not in kept:
            return None
        expert = kept.index(place.expert)
    return place.template.format(layer=layer, expert=expert), layer, expert


def cut_tensors(
    state: Mapping[str, Tensor] | Mapping[str, StoredTensor],
    family: Family,
    config: Any,
    keep: Keep,
) -> Iterator[tuple[str, Tensor]]:
    """The cut network's tensors, one at a time, under their new names.

    `config` is the old network's. The parts are scaled so that cutting what is zero changes
    nothing (shrink/scales.py). Of stored tensors only what stays is read; no part is held here
    once it is handed out.
    """
    scales = scales_of(family, config, keep)
    for name in state:
        place = place_of(family, name)
        renamed = new_name(family, place, keep)
        if renamed is None:
            continue
        called, layer, expert = renamed
        which = (place.dimensions, keep, layer, expert)
        yield called, scales.apply(slice_tensor(state[name], *which), place)


def cut_config(family: Family, config: Any, keep: Keep) -> Any:
    """The config of the network that stays."""
    tied = True if keep.tied else None
    layers, encoder = keep.layers.tolist(), keep.encoder_layers
    other_blocks = {} if encoder is None else {"encoder_layers": encoder.tolist()}
    return family.config_for(config, keep.shape, layers, tied=tied, other_blocks=other_blocks)


def cut_model(model: Any, family: Family, keep: Keep) -> Any:
    """A new transformers model of `keep.shape` with the weights that stay; `model` is unchanged."""
    config = cut_config(family, model.config, keep)
    state = dict(model.state_dict())
    tied = family.is_tied(config)
    if tied and family.head is not None:
        state.pop(family.head, None)
    with no_init_weights():
        student = type(model)(config)
    old = {tensor.data_ptr() for tensor in state.values()}
    parts = {
        name: part.clone() if part.data_ptr() in old else part
        for name, part in cut_tensors(state, family, model.config, keep)
    }
    student.load_state_dict(parts, strict=not tied, assign=True)  # not copied once more
    student.tie_weights()
    if model.can_generate():
        student.generation_config = model.generation_config
    return student.eval()
