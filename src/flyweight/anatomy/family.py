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
from functools import reduce
from importlib import import_module
from typing import Any

from flyweight.anatomy.gguf import GgufMap
from flyweight.anatomy.shape import AXES, Shape, is_number
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
    """Where a parameter belongs: its declaration, and the block and expert that it is of.

    `block_axis` is the axis that the block is one of.
    """

    template: str
    dimensions: tuple[Dimension, ...]
    layer: int | None
    expert: int | None
    block_axis: str = "layers"


@dataclass(frozen=True)
class BlockField:
    """A config field that names blocks along an axis by their numbers.

    `renumbered(numbers, kept, count)` tells what it says where of `count` blocks `kept` stay.
    """

    axis: str
    renumbered: Callable[[Sequence[int], Sequence[int], int], list[int]]


@dataclass(frozen=True)
class Family:
    """One architecture family, declared.

    `parameters` spells every parameter by name, `{layer}` standing for the block's number; `stored`
    those that go by another name in files (`{expert}`: an expert's number), `prefixes` how names
    may begin there and do in memory. `sizes` names the config field of each size of a Shape,
    `fixed` that of each dimension which is never cut, or tells it of the config;
    `text_config.hidden_size` is a field of a config inside. `present` tells of parameters that not
    every model (or block) has. `norms` are module names.
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
    prefixes: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str | Callable[[Any], int]] = field(default_factory=dict)
    present: Mapping[str, Callable[[Any, int], bool]] = field(default_factory=dict)
    embedding: str = "model.embed_tokens.weight"
    head: str | None = "lm_head.weight"  # the output embedding, if it may be tied to the input's
    final_norm: str = "model.norm"
    rotary: Callable[[Any], int] | None = None  # dimensions of a head that turn; None: all
    scales_attention: bool = True  # divides scores by sqrt(head_dim), without asking the config
    scales_embedding: bool = False  # multiplies embeddings by sqrt(hidden)
    hidden_is_heads: bool = False  # heads x head_dim is hidden, the config has no other place
    per_layer: tuple[str, ...] = ("layer_types",)  # config fields with an entry for each block
    # lists of other blocks, and the axis that counts each
    other_blocks: Mapping[str, str] = field(default_factory=dict)
    block_fields: Mapping[str, BlockField] = field(default_factory=dict)  # by config field
    pinned: tuple[int, ...] = ()  # blocks that cannot go
    kind: Callable[[Any, int], str] | None = None  # of a block: of each kind one has to stay
    least: Mapping[str, Callable[[Any], int]] = field(default_factory=dict)  # sizes, if over 1
    logits: Callable[[Any, Any], Any] = lambda config, logits: logits  # what follows the head
    model: str = "AutoModelForCausalLM"  # transformers' class that loads it, or "module:class"
    causal: bool = True  # a token sees only those before it: padding on the right needs no mask
    pictures: bool = False  # it is asked about pictures

    @property
    def loader(self) -> Any:
        """The class that loads it; one that stands higher up is imported when it is asked for."""
        module, _, name = self.model.rpartition(":")
        return getattr(import_module(module or "transformers"), name)

    def shape_of(self, config: Any) -> Shape:
        """The shape that a transformers config describes."""
        sizes = {}
        for size, name in self.sizes.items():
            value = _field(config, name)
            sizes[size] = int(self.defaults[size](config) if value is None else value)
        return Shape(**sizes)

    def config_for(
        self,
        config: Any,
        shape: Shape,
        layers: Sequence[int] | None = None,
        *,
        tied: bool | None = None,
        other_blocks: Mapping[str, Sequence[int]] | None = None,
    ) -> Any:
        """A copy of `config` that describes `shape`, made of these `layers` (the first ones).

        `other_blocks` lists the other blocks that stay, by the axis that counts them.
        """
        old = self.shape_of(config)
        kept = range(shape.layers) if layers is None else layers
        values = config.to_dict()
        for size, name in self.sizes.items():
            if size == "head_dim" and self.hidden_is_heads:
                continue
            if shape.size(size) != old.size(size) or _field(config, name) is not None:
                _set(values, name, shape.size(size))
        if not self.hidden_is_heads and shape.head_dim * shape.heads != shape.hidden:
            values[self.sizes["head_dim"]] = shape.head_dim
        for name in self.per_layer:
            if values.get(name) is not None:
                values[name] = [values[name][layer] for layer in kept]
        stay = {"layers": kept, **(other_blocks or {})}
        for name, each in self.block_fields.items():
            count, now = old.size(each.axis), stay.get(each.axis, range(shape.size(each.axis)))
            if len(now) < count:
                _set(values, name, each.renumbered(_field(config, name), now, count))
        _set(values, self.norm_epsilon, self.epsilon(config, shape))
        if tied is not None:
            values["tie_word_embeddings"] = tied
        return type(config).from_dict(values)

    def epsilon(self, config: Any, shape: Shape) -> float:
        """The norms' epsilon after a cut: a mean over fewer channels is that much larger."""
        before = _field(config, self.norm_epsilon)
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
        parameter = self.in_memory(parameter)
        template, layer, expert, block_axis = parameter, None, None, "layers"
        for blocks, axis in {self.blocks: "layers", **self.other_blocks}.items():
            match = re.match(rf"{re.escape(blocks)}\.(\d+)\.", parameter)
            if match:
                layer, block_axis = int(match.group(1)), axis
                template = f"{blocks}.{{layer}}.{parameter[match.end() :]}"
        match = re.search(r"\.experts\.(\d+)\.", template)
        if match and layer is not None:
            expert = int(match.group(1))
            template = template[: match.start(1)] + "{expert}" + template[match.end(1) :]
        spelling = self.parameters.get(template) or self.stored[template]
        return Place(template, parse_dimensions(spelling), layer, expert, block_axis)

    def in_memory(self, parameter: str) -> str:
        """A parameter's name as it begins in memory."""
        for begin, here in self.prefixes.items():
            if parameter.startswith(begin):
                return here + parameter.removeprefix(begin)
        return parameter

    def tensors(self, shape: Shape, config: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and sizes of every parameter of a network of this shape, as in memory.

        `config` tells what the shape does not: ties, biases, fixed sizes.
        """
        for template, spelling in self.parameters.items():
            sizes = tuple(
                sum(math.prod(self._size(axis, shape, config) for axis in term) for term in terms)
                for terms in parse_dimensions(spelling)
            )
            for layer in self.layers_with(template, shape, config):
                yield template.format(layer=layer), sizes

    def layers_with(self, template: str, shape: Shape, config: Any) -> Iterator[int]:
        """The blocks of a network of this shape that have the parameter; 0 where it is of none."""
        blocks, inside, _ = template.partition(".{layer}")
        block_axis = self.other_blocks.get(blocks, "layers")
        for layer in range(self._size(block_axis, shape, config) if inside else 1):
            if self.has(template, config, layer):
                yield layer

    def _size(self, axis: str, shape: Shape, config: Any) -> int:
        if axis in AXES or is_number(axis):
            return shape.size(axis)
        told = self.fixed[axis]
        return int(_field(config, told) if isinstance(told, str) else told(config))

    def count(self, shape: Shape, config: Any) -> int:
        """How many parameters a network of this shape has."""
        return sum(math.prod(sizes) for _, sizes in self.tensors(shape, config))

    def inputs(self, counts: Any) -> dict[str, Any]:
        """What a forward pass is given besides ids, where `counts` bool [B, T] tells of padding."""
        return {"use_cache": False} if self.causal else {"attention_mask": counts.long()}

    def turning(self, config: Any) -> int:
        """How many dimensions of a head RoPE turns."""
        return self.shape_of(config).head_dim if self.rotary is None else self.rotary(config)


def _field(config: Any, name: str) -> Any:
    """What a config says in a field, perhaps of a config inside; None where it has none such."""
    return reduce(lambda inside, part: getattr(inside, part, None), name.split("."), config)


def _set(values: dict[str, Any], name: str, value: Any) -> None:
    """Put a value into a field of a config's dictionary."""
    *inside, last = name.split(".")
    reduce(lambda found, part: found[part], inside, values)[last] = value
