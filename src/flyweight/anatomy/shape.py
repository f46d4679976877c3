"""The sizes that define a network, and the axes along which one can be cut."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

AXES = {
    "layers": "whole transformer blocks",
    "hidden": "channels of the residual stream, the same in every layer",
    "mlp": "intermediate channels of the feed-forward block, chosen per layer (and per expert)",
    "kv_groups": "key/value heads with all the query heads that share them, chosen per layer",
    "group_heads": "query heads within a KV group, chosen per layer and group",
    "head_dim": "dimensions of queries and keys in a head: every r-th RoPE pair",
    "value_dim": "dimensions of values in a head, as many, chosen per layer and group",
    "experts": "experts of a mixture, chosen per layer",
    "seen": "channels of what is seen of a picture, as many as hidden",
    "encoder_layers": "blocks of an image encoder within tiles",
    "encoder_mlp": "intermediate channels of an image encoder's blocks, chosen per layer",
    "global_mlp": "the same in its blocks over all tiles, as many",
    "vocabulary": "rows of the input and output embeddings",
}

_OPTIONAL = ("experts", "encoder_layers", "encoder_mlp")


@dataclass(frozen=True)
class Shape:
    """The sizes that define a network; `heads` counts query heads over all KV groups.

    `experts` is 0 for a dense network, and the encoder's sizes are for one without eyes.
    """

    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_groups: int
    head_dim: int
    vocabulary: int
    experts: int = 0
    encoder_layers: int = 0
    encoder_mlp: int = 0

    @property
    def group_heads(self) -> int:
        """Query heads in each KV group."""
        return self.heads // self.kv_groups

    @property
    def value_dim(self) -> int:
        """Dimensions of a value, in every family as many as of a query."""
        return self.head_dim

    @property
    def seen(self) -> int:
        """Channels of what is seen of a picture."""
        return self.hidden

    @property
    def global_mlp(self) -> int:
        """Intermediate channels of an encoder's blocks over all tiles."""
        return self.encoder_mlp

    def size(self, axis: str) -> int:
        """The length of an axis of AXES, or of one that is spelled as a number and never cut."""
        return int(axis) if is_number(axis) else getattr(self, axis)

    def __str__(self) -> str:
        more = f", {self.experts} experts" if self.experts else ""
        if self.encoder_layers:
            more += f", encoder {self.encoder_layers} layers, MLP {self.encoder_mlp}"
        return (
            f"{self.layers} layers x {self.hidden}, MLP {self.mlp}, "
            f"{self.heads} heads in {self.kv_groups} groups{more}"
        )

    def as_dict(self) -> dict[str, int]:
        """The sizes by name; experts and an encoder only where there are any."""
        sizes = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: size for name, size in sizes.items() if name not in _OPTIONAL or size}

    def with_sizes(self, **sizes: int | None) -> Shape:
        """This shape with the given sizes changed; None leaves a size as it is."""
        return replace(self, **{name: size for name, size in sizes.items() if size is not None})


def is_number(axis: str) -> bool:
    """Whether an axis is spelled as a number: so long, and never cut."""
    return axis.isdigit()
