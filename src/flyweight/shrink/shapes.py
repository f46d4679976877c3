"""The fixed grid of shapes that a search starts from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from flyweight.anatomy import Family, Shape
from flyweight.errors import OptionError

BLOCK = 32  # every row that is to be quantised must be a multiple of this
LAYERS = (1.0, 0.75, 0.5, 0.375, 0.25)
HIDDEN = (1.0, 0.75, 0.5, 0.375, 0.25)
MLP = (1.0, 0.75, 0.5, 0.375, 0.25)
GROUPS = (1.0, 0.5)
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
    slack: float = 0.1,
    *,
    heads: bool = False,
) -> list[Candidate]:
    """Candidates with about `keep` of the teacher's parameters (within `slack`, relative).

    All combinations of a few layer counts, widths, MLP widths and KV group counts, with `heads`
    also of query heads in a group; widths are multiples of 32, so that every row can be quantised.
    """
    whole = family.count(teacher, config)
    sizes = product(
        portions(teacher.layers, LAYERS, 1),
        portions(teacher.hidden, HIDDEN, BLOCK),
        portions(teacher.mlp, MLP, BLOCK),
        portions(teacher.kv_groups, GROUPS, 1),
        portions(teacher.group_heads, HEADS if heads else (1.0,), 1),
    )
    candidates = []
    for layers, hidden, mlp, groups, each in sizes:
        shape = teacher.with_sizes(
            layers=layers,
            hidden=hidden,
            mlp=mlp,
            kv_groups=groups,
            heads=groups * each,
        )
        count = family.count(shape, config)
        if fits(shape) and abs(count / whole / keep - 1) <= slack:
            candidates.append(Candidate(shape, count, count / whole))
    return candidates


def check_shape(old: Shape, new: Shape, keep: float) -> None:
    """OptionError unless `new` can be cut out of `old`, and `keep` is a share."""
    if not 0 < keep < 1:
        raise OptionError(f"--keep is {keep}: give a share between 0 and 1, such as 0.25.")
    for name, size in new.as_dict().items():
        most = old.size(name)
        if not 1 <= size <= most:
            raise OptionError(f"--{name.replace('_', '-')} is {size}: the teacher has {most}.")
    if new.heads % new.kv_groups or new.group_heads > old.group_heads:
        raise OptionError(
            f"--heads {new.heads} does not fit {new.kv_groups} KV groups: give a multiple of "
            f"{new.kv_groups}, at most {new.kv_groups * old.group_heads}."
        )
    if not fits(new):
        raise OptionError(
            f"--hidden {new.hidden} with {new.heads} heads: transformers loads no such model. Give "
            f"a multiple of {new.heads}, such as {max(1, new.hidden // new.heads) * new.heads}."
        )
