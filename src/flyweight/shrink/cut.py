"""Slicing: a smaller network made of what stays of a bigger one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from transformers.initialization import no_init_weights

from flyweight.anatomy import Family
from flyweight.anatomy.family import Dimension
from flyweight.errors import UnsupportedFamily
from flyweight.shrink.keep import Keep


def slice_tensor(tensor: Tensor, dimensions: tuple[Dimension, ...], keep: Keep, layer: int | None):
    """The part of one parameter that stays; `layer` counts the blocks that stay."""
    for number, dimension in enumerate(dimensions):
        if dimension != ("vocabulary",):
            tensor = tensor.index_select(number, keep.index(dimension, layer))
    return tensor.contiguous()


def cut_tensors(
    state: Mapping[str, Tensor], family: Family, keep: Keep
) -> Iterator[tuple[str, Tensor]]:
    """The cut network's tensors, one at a time, under their new names.

    A norm divides by the root mean square over D channels. If the channels that go were zero,
    the sum would stay and the mean grow by old/new: the norm's weight takes sqrt(old / new)
    (and the config's epsilon old / new), so that cutting zero channels changes nothing.
    """
    place = {int(old): new for new, old in enumerate(keep.layers)}
    rescale = math.sqrt(keep.old.hidden / len(keep.hidden))
    for name, tensor in state.items():
        try:
            dimensions, old_layer = family.spell(name)
        except KeyError:
            raise UnsupportedFamily(
                f"the model has a parameter {name!r} that the family {family.name!r} does not "
                "declare. Use a model without such additions."
            ) from None
        if old_layer is not None and old_layer not in place:
            continue
        layer = None if old_layer is None else place[old_layer]
        part = slice_tensor(tensor, dimensions, keep, layer)
        if name.removesuffix(".weight").endswith(family.norms):
            part = part * rescale
        new_name = name
        if layer is not None:
            new_name = family.template(name).format(layer=layer)
        yield new_name, part


def cut_model(model: Any, family: Family, keep: Keep) -> Any:
    """A new transformers model of `keep.shape` with the weights that stay; `model` is unchanged."""
    config = family.config_for(model.config, keep.shape)
    tied = config.tie_word_embeddings
    state = dict(model.state_dict())
    if tied:
        state.pop("lm_head.weight", None)
    with no_init_weights():
        student = type(model)(config).to(model.dtype)
    student.load_state_dict(dict(cut_tensors(state, family, keep)), strict=not tied)
    student.tie_weights()
    student.generation_config = model.generation_config
    return student.eval()
