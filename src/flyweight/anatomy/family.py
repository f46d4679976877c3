"""What an architecture is made of: each dimension of each parameter, named by its axis.

A family is declared the way einops spells shapes. `"(kv_groups group_heads head_dim) hidden"`
says that the rows of a weight run over KV groups, then over the query heads of a group, then
over a head's dimensions, and that its columns are hidden channels; `"(mlp + mlp) hidden"` that two
projections are stacked in one weight. From that one line follow the size of every tensor, what
falls when a group or a channel goes, and where importance is read. Everything else works on axes
and never names an architecture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyweight.anatomy.gguf import GgufMap
from flyweight.anatomy.shape import AXES, Shape
from flyweight.errors import UnsupportedFamily

Term = tuple[str, ...]  # the axes that it runs over, outermost first
Dimension = tuple[Term, ...]  # terms laid end to end


def parse_dimensions(spelling: str) -> tuple[Dimension, ...]:
    """The dimensions of "(kv_groups head_dim) hidden", each a sum of terms, each a product of axes.

    Here: ((("kv_groups", "head_dim"),), (("hidden",),)).
    """
    parts = re.findall(r"\(([^)]*)\)|(\S+)", spelling)
    return tuple(
        tuple(tuple(term.split()) for term in (inside or single).split("+"))
        for inside, single in parts
    )


@dataclass(frozen=True)
class Norm:
    """A normalisation: how its stored weight is meant, and what it normalises.

    `offset` is added to the stored weight (Gemma multiplies by 1 + w); `centred` norms subtract the
    mean first (LayerNorm); `reads` names the weight whose output it takes, None for the residual
    stream.
    """

    offset: float = 0.0
    centred: bool = False
    reads: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a parameter belongs: its declaration, and the block and expert that it is of."""

    template: str
    dimensions: tuple[Dimension, ...]
    layer: int | None
    expert: int | None


@dataclass(frozen=True)
class Family:
    """One architecture family, declared.

    `parameters` spells every parameter by name, `{layer}` standing for the block's number; `stored`
    those that go by another name in files (`{expert}`: an expert's number). `sizes` names the
    config field of each size of a Shape, `fixed` that of each dimension which is never cut.
    `present` tells of parameters that not every model (or block) has. `norms` are module names.
    """

    name: str
    model_types: tuple[str, ...]
    parameters: Mapping[str, str]
    sizes: Mapping[str, str]
    blocks: str  # module name of the list of blocks
    norms: Mapping[str, Norm]
    norm_epsilon: str  # config field
    cuttable: tuple[str, ...]
    gguf: GgufMap | None = None
    defaults: Mapping[str, Callable[[Any], int]] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    present: Mapping[str, Callable[[Any, int], bool]] = field(default_factory=dict)
    embedding: str = "model.embed_tokens.weight"
    head: str | None = "lm_head.weight"  # the output embedding, which may be tied to the input's
    final_norm: str = "model.norm"
    rotary: Callable[[Any], int] | None = None  # dimensions of a head that turn; None: all
    scales_attention: bool = True  # divides scores by sqrt(head_dim), without asking the config
    scales_embedding: bool = False  # multiplies embeddings by sqrt(hidden)
    hidden_is_heads: bool = False  # heads x head_dim is hidden, the config has no other place
    per_layer: tuple[str, ...] = ("layer_types",)  # config fields with an entry for each block
    pinned: tuple[int, ...] = ()  # blocks that cannot go
    least: Mapping[str, Callable[[Any], int]] = field(default_factory=dict)  # sizes, if over 1
    logits: Callable[[Any, Any], Any] = lambda config, logits: logits  # what follows the head
    model: str = "AutoModelForCausalLM"  # transformers' class that loads it
    causal: bool = True  # a token sees only those before it: padding on the right needs no mask

    def shape_of(self, config: Any) -> Shape:
        """The shape that a transformers config describes."""
        sizes = {}
        for size, name in self.sizes.items():
            value = getattr(config, name, None)
            sizes[size] = int(self.defaults[size](config) if value is None else value)
        return Shape(**sizes)

    def config_for(
        self,
        config: Any,
        shape: Shape,
        layers: Sequence[int] | None = None,
        *,
        tied: bool | None = None,
    ) -> Any:
        """A copy of `config` that describes `shape`, made of these `layers` (the first ones)."""
        old = self.shape_of(config)
        kept = range(shape.layers) if layers is None else layers
        values = config.to_dict()
        for size, name in self.sizes.items():
            if size == "head_dim" and self.hidden_is_heads:
                continue
            if shape.size(size) != old.size(size) or values.get(name) is not None:
                values[name] = shape.size(size)
        if not self.hidden_is_heads and shape.head_dim * shape.heads != shape.hidden:
            values[self.sizes["head_dim"]] = shape.head_dim
        for name in self.per_layer:
            if values.get(name) is not None:
                values[name] = [values[name][layer] for layer in kept]
        values[self.norm_epsilon] = self.epsilon(config, shape)
        if tied is not None:
            values["tie_word_embeddings"] = tied
        return type(config).from_dict(values)

    def epsilon(self, config: Any, shape: Shape) -> float:
        """The norms' epsilon after a cut: a mean over fewer channels is that much larger."""
        before = getattr(config, self.norm_epsilon)
        if any(norm.centred for norm in self.norms.values()):
            return before  # kept channels have their own mean and deviation, see shrink/scales.py
        return before * self.shape_of(config).hidden / shape.hidden

    def is_exported(self, config: Any, shape: Shape) -> bool:
        """Whether a network of this shape can be written to GGUF; True where no network can."""
        if self.gguf is None:
            return True
        try:
            self.gguf.metadata(self.config_for(config, shape))
        except UnsupportedFamily:
            return False
        return True

    def is_tied(self, config: Any) -> bool:
        """Whether the output embedding is the input embedding."""
        return self.head is not None and bool(config.tie_word_embeddings)

    def has(self, template: str, config: Any, layer: int = 0) -> bool:
        """Whether a model of this config has the parameter (in this block)."""
        if template == self.head and self.is_tied(config):
            return False
        told = self.present.get(template)
        return told is None or bool(told(config, layer))

    def spell(self, parameter: str) -> Place:
        """What is declared of a parameter, in memory or in a file; KeyError for an unknown one."""
        template, layer, expert = parameter, None, None
        match = re.match(rf"{re.escape(self.blocks)}\.(\d+)\.", parameter)
        if match:
            layer = int(match.group(1))
            template = f"{self.blocks}.{{layer}}.{parameter[match.end() :]}"
            match = re.search(r"\.experts\.(\d+)\.", template)
            if match:
                expert = int(match.group(1))
                template = template[: match.start(1)] + "{expert}" + template[match.end(1) :]
        spelling = self.parameters.get(template) or self.stored[template]
        return Place(template, parse_dimensions(spelling), layer, expert)

    def tensors(self, shape: Shape, config: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and sizes of every parameter of a network of this shape, as in memory.

        `config` tells what the shape does not: ties, biases, fixed sizes.
        """
        for template, spelling in self.parameters.items():
            sizes = tuple(
                sum(math.prod(self._size(axis, shape, config) for axis in term) for term in terms)
                for terms in parse_dimensions(spelling)
            )
            for layer in range(shape.layers if "{layer}" in template else 1):
                if self.has(template, config, layer):
                    yield template.format(layer=layer), sizes

    def _size(self, axis: str, shape: Shape, config: Any) -> int:
        return shape.size(axis) if axis in AXES else int(getattr(config, self.fixed[axis]))

    def count(self, shape: Shape, config: Any) -> int:
        """How many parameters a network of this shape has."""
        return sum(math.prod(sizes) for _, sizes in self.tensors(shape, config))

    def inputs(self, counts: Any) -> dict[str, Any]:
        """What a forward pass is given besides ids, where `counts` bool [B, T] tells of padding."""
        return {"use_cache": False} if self.causal else {"attention_mask": counts.long()}

    def turning(self, config: Any) -> int:
        """How many dimensions of a head RoPE turns."""
        return self.shape_of(config).head_dim if self.rotary is None else self.rotary(config)
