"""The fixed grid of shapes that a search starts from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from flyweight.anatomy import Family, Shape

BLOCK = 32  # every row that is to be quantised must be a multiple of this
LAYERS = (1.0, 0.75, 0.5, 0.375, 0.25)
HIDDEN = (1.0, 0.75, 0.5, 0.375, 0.25)
MLP = (1.0, 0.75, 0.5, 0.375, 0.25)
GROUPS = (1.0, 0.5)
EXPERTS = (1.0, 0.5, 0.25)
ENCODER = (1.0, 0.5, 0.25)  # of an encoder's blocks and of their MLP, both at once
SLACK = 0.1  # by which a shape may miss the share that is asked for, relative
HEADS = (1.0, 0.5)  # of the query heads within a group


@dataclass(frozen=True)
class Candidate:
    """A shape of the grid, how many parameters it has, and its share of the teacher's."""

    shape: Shape
    parameters: int
    share: float


def portions(size: int, shares: tuple[float, ...], multiple: int) -> list[int]:
    """`size` times each share, rounded to a multiple (at least one), without repeats."""
    rounded = {max(multiple, round(size * share / multiple) * multiple) for share in shares}
    return sorted({min(size, value) for value in rounded}, reverse=True)


def fits(shape: Shape) -> bool:
    """Whether transformers' configs take the shape: its heads must divide its hidden channels.

    They ask that even where the width of a head is given.
    """
    return shape.hidden % shape.heads == 0


def grid(
    family: Family,
    teacher: Shape,
    config: Any,
    keep: float,
    slack: float = SLACK,
    *,
    heads: bool = False,
) -> list[Candidate]:
    """Candidates with about `keep` of the teacher's parameters (within `slack`, relative).

    All combinations of a few layer counts, widths, MLP widths, KV group and expert counts, with
    `heads` also of query heads in a group; widths are multiples of 32, so that every row can be
    quantised. Shapes that llama.cpp has no graph for are left out.
    """
    whole = family.count(teacher, config)
    candidates = []
    for shape in _shapes(family, teacher, config, heads):
        count = family.count(shape, config)
        near = abs(count / whole / keep - 1) <= slack
        if near and fits(shape) and family.is_exported(config, shape):
            candidates.append(Candidate(shape, count, count / whole))
    return candidates


def _shapes(family: Family, teacher: Shape, config: Any, heads: bool) -> Iterator[Shape]:
    """Every combination of the grid's sizes; where hidden is heads x head_dim, it follows them."""
    least = {axis: told(config) for axis, told in family.least.items()}
    fewest = max(len(family.pinned), least.get("layers", 1))
    counts = portions(teacher.experts, EXPERTS, 1) if teacher.experts else []
    sizes = product(
        [layers for layers in portions(teacher.layers, LAYERS, 1) if layers >= fewest],
        [0] if family.hidden_is_heads else portions(teacher.hidden, HIDDEN, BLOCK),
        portions(teacher.mlp, MLP, BLOCK),
        portions(teacher.kv_groups, HIDDEN if family.hidden_is_heads else GROUPS, 1),
        portions(teacher.group_heads, HEADS if heads else (1.0,), 1),
        [size for size in counts if size >= least.get("experts", 1)] or [0],
        _encoders(teacher),
    )
    for layers, hidden, mlp, groups, each, experts, encoder in sizes:
        yield teacher.with_sizes(
            layers=layers,
            hidden=hidden or groups * each * teacher.head_dim,
            mlp=mlp,
            kv_groups=groups,
            heads=groups * each,
            experts=experts,
            **encoder,
        )


def _encoders(teacher: Shape) -> list[dict[str, int]]:
    """The sizes of an encoder, its blocks and their MLP in step; of a model without one nothing."""
    if not teacher.encoder_layers:
        return [{}]
    sizes = {
        (
            portions(teacher.encoder_layers, (share,), 1)[0],
            portions(teacher.encoder_mlp, (share,), BLOCK)[0],
        )
        for share in ENCODER
    }
    biggest_first = sorted(sizes, reverse=True)
    return [{"encoder_layers": layers, "encoder_mlp": mlp} for layers, mlp in biggest_first]
