"""What an architecture is made of: each dimension of each parameter, named by its axis.

A family is declared the way einops spells shapes. `"(kv_groups group_heads head_dim) hidden"`
says that the rows of a weight run over KV groups, then over the query heads of a group, then
over a head's dimensions, and that its columns are hidden channels. From that one line follow
the size of every tensor, what falls when a group or a channel goes, and where importance is
read. Everything else works on axes and never names an architecture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from flyweight.anatomy.gguf import GgufMap

AXES = {
    "layers": "whole transformer blocks",
    "hidden": "channels of the residual stream, the same in every layer",
    "mlp": "intermediate channels of the feed-forward block, chosen per layer",
    "kv_groups": "key/value heads with all the query heads that share them, chosen per layer",
    "group_heads": "query heads within a KV group, chosen per layer and group",
    "head_dim": "dimensions of a head",
    "vocabulary": "rows of the input and output embeddings",
}


@dataclass(frozen=True)
class Shape:
    """The sizes that define a network; `heads` counts query heads over all KV groups."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_groups: int
    head_dim: int
    vocabulary: int

    @property
    def group_heads(self) -> int:
        """Query heads in each KV group."""
        return self.heads // self.kv_groups

    def size(self, axis: str) -> int:
        """The length of an axis of AXES."""
        return getattr(self, axis)

    def __str__(self) -> str:
        return (
            f"{self.layers} layers x {self.hidden}, MLP {self.mlp}, "
            f"{self.heads} heads in {self.kv_groups} groups"
        )

    def as_dict(self) -> dict[str, int]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def with_sizes(self, **sizes: int | None) -> Shape:
        """This shape with the given sizes changed; None leaves a size as it is."""
        return replace(self, **{name: size for name, size in sizes.items() if size is not None})


Dimension = tuple[str, ...]  # the axes that a dimension runs over, outermost first


def parse_dimensions(spelling: str) -> tuple[Dimension, ...]:
    """The dimensions of "(kv_groups head_dim) hidden": (("kv_groups", "head_dim"), ("hidden",))."""
    parts = re.findall(r"\(([^)]*)\)|(\S+)", spelling)
    return tuple(tuple((inside or single).split()) for inside, single in parts)


@dataclass(frozen=True)
class Family:
    """One architecture family, declared.

    `parameters` spells every parameter by name, `{layer}` standing for the block's number;
    `sizes` names the config field of each size of a Shape; `unscale` lists the norms whose mean
    runs over hidden channels, and which therefore need sqrt(old / new) when channels go.
    """

    name: str
    model_types: tuple[str, ...]
    parameters: Mapping[str, str]
    sizes: Mapping[str, str]
    blocks: str  # module name of the list of blocks
    norms: tuple[str, ...]
    norm_epsilon: str  # config field
    cuttable: tuple[str, ...]
    gguf: GgufMap | None = None
    defaults: Mapping[str, Callable[[Any], int]] = field(default_factory=dict)

    def shape_of(self, config: Any) -> Shape:
        """The shape that a transformers config describes."""
        sizes = {}
        for size, name in self.sizes.items():
            value = getattr(config, name, None)
            sizes[size] = int(self.defaults[size](config) if value is None else value)
        return Shape(**sizes)

    def config_for(self, config: Any, shape: Shape) -> Any:
        """A copy of `config` that describes `shape`."""
        old = self.shape_of(config)
        values = config.to_dict()
        values |= {name: shape.size(size) for size, name in self.sizes.items()}
        values[self.norm_epsilon] *= old.hidden / shape.hidden  # see shrink/cut.py
        return type(config).from_dict(values)

    def spell(self, parameter: str) -> tuple[tuple[Dimension, ...], int | None]:
        """The dimensions of a parameter, and the number of its block (None outside blocks)."""
        match = re.search(rf"(?<=^{re.escape(self.blocks)}\.)\d+(?=\.)", parameter)
        layer = int(match.group()) if match else None
        template = parameter if match is None else self.template(parameter)
        if template not in self.parameters:
            raise KeyError(parameter)
        return parse_dimensions(self.parameters[template]), layer

    def template(self, parameter: str) -> str:
        """The name with the block's number replaced: "model.layers.{layer}.mlp.up_proj.weight"."""
        return re.sub(rf"^({re.escape(self.blocks)}\.)\d+\.", r"\1{layer}.", parameter)

    def tensors(self, shape: Shape, tied: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and sizes of every parameter of a network of this shape."""
        for template, spelling in self.parameters.items():
            if tied and template == "lm_head.weight":
                continue
            sizes = tuple(
                math.prod(shape.size(axis) for axis in dimension)
                for dimension in parse_dimensions(spelling)
            )
            if "{layer}" not in template:
                yield template, sizes
                continue
            for layer in range(shape.layers):
                yield template.format(layer=layer), sizes

    def count(self, shape: Shape, tied: bool) -> int:
        """How many parameters a network of this shape has."""
        return sum(math.prod(sizes) for _, sizes in self.tensors(shape, tied))
