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
    "vocabulary": "rows of the input and output embeddings",
}


@dataclass(frozen=True)
class Shape:
    """The sizes that define a network; `heads` counts query heads over all KV groups.

    `experts` is 0 for a dense network.
    """

    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_groups: int
    head_dim: int
    vocabulary: int
    experts: int = 0

    @property
    def group_heads(self) -> int:
        """Query heads in each KV group."""
        return self.heads // self.kv_groups

    @property
    def value_dim(self) -> int:
        """Dimensions of a value, in every family as many as of a query."""
        return self.head_dim

    def size(self, axis: str) -> int:
        """The length of an axis of AXES."""
        return getattr(self, axis)

    def __str__(self) -> str:
        experts = f", {self.experts} experts" if self.experts else ""
        return (
            f"{self.layers} layers x {self.hidden}, MLP {self.mlp}, "
            f"{self.heads} heads in {self.kv_groups} groups{experts}"
        )

    def as_dict(self) -> dict[str, int]:
        """The sizes by name; `experts` only where there are any."""
        sizes = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: size for name, size in sizes.items() if name != "experts" or size}

    def with_sizes(self, **sizes: int | None) -> Shape:
        """This shape with the given sizes changed; None leaves a size as it is."""
        return replace(self, **{name: size for name, size in sizes.items() if size is not None})
