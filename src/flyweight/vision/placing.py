"""Where the cross-attention layers stand among those of the language model."""

from __future__ import annotations

import math
from collections.abc import Collection

from flyweight.errors import OptionError

APART = 4  # language layers for one cross-attention layer, as in Llama 3.2 Vision 11B and 90B


def cross_layers(layers: int, count: int) -> list[int]:
    """The numbers of `count` cross-attention layers among all layers, as transformers counts them.

    Meta's rule: one before the last of the language model's `layers`, and going back from there
    one before every ceil(layers / count)-th. The j-th of them (from 0), before language layer l,
    becomes number l + j: (32, 8) gives [3, 8, 13, 18, 23, 28, 33, 38].

    OptionError where the rule does not place as many: it finds room for 5 of 8 on 10 layers.

    Source: `CrossAttentionTransformerText._init_fusion_schedule` of llama-models 0.3.0.
    """
    if not 1 <= count <= layers:
        raise OptionError(f"{count} cross-attention layers on {layers} layers: give 1 to {layers}.")
    every = math.ceil(layers / count)
    before = range(layers - 1, -1, -every)[:count][::-1]
    if len(before) < count:
        raise OptionError(
            f"{count} cross-attention layers cannot be spread evenly over {layers} layers: "
            f"give {len(before)}, or {layers} for one before each."
        )
    return [layer + earlier for earlier, layer in enumerate(before)]


def usual_count(layers: int) -> int:
    """How many cross-attention layers a language model gets: one for four layers, or some fewer.

    As many as the rule places without one before the first layer, from which transformers counts
    the tokens of its cache.
    """
    for count in range(layers // APART, 1, -1):
        every = math.ceil(layers / count)
        if layers - 1 - (count - 1) * every > 0:
            return count
    return 1


def language_layers(total: int, crossing: Collection[int]) -> list[int]:
    """The numbers of the language model's own layers among `total`, of which some are crossing."""
    return [layer for layer in range(total) if layer not in crossing]


__all__ = ["cross_layers", "language_layers", "usual_count"]
