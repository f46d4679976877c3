"""Indices of what stays, against nested loops."""

from __future__ import annotations

import torch

from flyweight.anatomy import Shape
from flyweight.shrink.keep import Keep

OLD = Shape(layers=3, hidden=6, mlp=5, heads=6, kv_groups=2, head_dim=2, vocabulary=7)
KEEP = Keep(
    layers=torch.tensor([0, 2]),
    hidden=torch.tensor([1, 4, 5]),
    mlp=torch.tensor([[0, 3], [2, 4]]),
    kv_groups=torch.tensor([[1], [0]]),
    group_heads=torch.tensor([[[0, 2]], [[1, 2]]]),
    old=OLD,
)


def test_the_shape_is_that_of_what_stays() -> None:
    assert KEEP.shape == Shape(
        layers=2, hidden=3, mlp=2, heads=2, kv_groups=1, head_dim=2, vocabulary=7
    )


def test_plain_dimensions_are_indexed_by_their_axis() -> None:
    assert KEEP.index((("hidden",),), None).tolist() == [1, 4, 5]
    assert KEEP.index((("mlp",),), 1).tolist() == [2, 4]
    assert KEEP.index((("vocabulary",),), None).tolist() == list(range(7))


def test_nested_dimensions_run_over_groups_then_heads_then_channels() -> None:
    query = (("kv_groups", "group_heads", "head_dim"),)
    # layer 0 keeps group 1 of 2, and in it heads 0 and 2 of 3: heads 3 and 5 of 6
    assert KEEP.index(query, 0).tolist() == [6, 7, 10, 11]
    assert KEEP.index(query, 1).tolist() == [2, 3, 4, 5]
    assert KEEP.index((("kv_groups", "head_dim"),), 0).tolist() == [2, 3]
