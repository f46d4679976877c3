"""What a cut must multiply, so that channels which carried nothing can go without a trace.

Wherever a size enters the computation, its change is undone:

- a norm over n channels divides by sqrt(S / n), S the sum of squares. Were the channels that go
  zero, S would stay and the mean grow: the weight takes sqrt(n / n') for n' channels that stay, the
  epsilon n / n'. There is one epsilon for all norms, set by the hidden channels; other norms have
  what they read scaled, which comes to the same;
- scores divided by sqrt(head_dim): queries x sqrt(d' / d), in their norm where they have one;
- embeddings multiplied by sqrt(hidden): the table x sqrt(D / D'), undone before a tied head.

A norm that subtracts the mean cannot be undone so: it takes mean and deviation of what stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flyweight.anatomy import Family, Shape
from flyweight.anatomy.family import Dimension, Place, Term, parse_dimensions
from flyweight.shrink.keep import Keep

BLOCK_ROWS = 1024
QUERY: Term = ("kv_groups", "group_heads", "head_dim")


@dataclass(frozen=True)
class Scales:
    """The factors of one cut."""

    family: Family
    keep: Keep
    new: Shape
    epsilon: float  # new over old
    tied: bool  # the new network is

    def apply(self, part: Tensor, place: Place) -> Tensor:
        """A parameter's part that stays, multiplied by what the cut asks; same type."""
        module, _, kind = place.template.rpartition(".")
        norm = self.family.norms.get(module)
        if norm is not None:
            factor = self._of_norm(module, place) if kind == "weight" else 1.0
            if factor == 1:
                return part
            return ((part.float() + norm.offset) * factor - norm.offset).to(part.dtype)
        factors = [self._of_rows(term, module, place.template) for term in place.dimensions[0]]
        if all(factor == 1 for factor in factors):
            return part
        rows = torch.cat(
            [
                torch.full((size_of((term,), self.new),), factor)
                for term, factor in zip(place.dimensions[0], factors, strict=True)
            ]
        )
        return _times(part, rows)

    def _of_norm(self, module: str, place: Place) -> float:
        """The factor of a norm's weight."""
        factor = 1.0
        if not self.family.norms[module].centred:
            factor /= math.sqrt(self._ratio(place.dimensions[0]))
        if self._norms_queries(module):
            factor *= self._attention
        if self.family.scales_embedding and self.tied and module == self.family.final_norm:
            factor *= math.sqrt(self._ratio((("hidden",),)))
        return factor

    def _of_rows(self, term: Term, module: str, template: str) -> float:
        """The factor of the rows of a weight (entries of a bias) that run over a term."""
        factor = 1.0
        if self.family.scales_embedding and template == self.family.embedding:
            factor /= math.sqrt(self._ratio((("hidden",),)))
        readers = {name: norm for name, norm in self.family.norms.items() if norm.reads == module}
        if term == QUERY and not readers:
            factor *= self._attention
        for name, norm in readers.items():
            if not norm.centred:
                over = parse_dimensions(self.family.parameters[f"{name}.weight"])[0]
                factor *= math.sqrt(self.epsilon * self._ratio(over))
        return factor

    @property
    def _attention(self) -> float:
        """What queries need, since the model divides scores by the root of a head's width."""
        scaled = self.family.scales_attention
        return math.sqrt(self._ratio((("head_dim",),))) if scaled else 1.0

    def _norms_queries(self, name: str) -> bool:
        """Whether a norm is that of queries."""
        reads = self.family.norms[name].reads
        if reads is None:
            return False
        return QUERY in parse_dimensions(self.family.parameters[f"{reads}.weight"])[0]

    def _ratio(self, dimension: Dimension) -> float:
        """The new length of a dimension over the old one."""
        return size_of(dimension, self.new) / size_of(dimension, self.keep.old)


def size_of(dimension: Dimension, shape: Shape) -> int:
    """The length of a dimension that runs over axes alone."""
    return sum(math.prod(shape.size(axis) for axis in term) for term in dimension)


def _times(part: Tensor, rows: Tensor) -> Tensor:
    """Each row of a part times its factor, in fp32; same type. Block by block, to hold no copy."""
    scaled = torch.empty_like(part)
    blocks = (each.split(BLOCK_ROWS) for each in (scaled, part, rows))
    for out, block, factors in zip(*blocks, strict=True):
        out.copy_(block.float() * factors.view(-1, *[1] * (part.dim() - 1)))
    return scaled


def scales_of(family: Family, config: Any, keep: Keep) -> Scales:
    """The factors of cutting a network of this config to what `keep` keeps."""
    new = keep.shape
    before = family.epsilon(config, keep.old)
    ratio = family.epsilon(config, new) / before if before else 1.0
    return Scales(family, keep, new, ratio, keep.tied or family.is_tied(config))
