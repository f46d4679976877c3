"""The grid of shapes: near the share that was asked for, and all of it can be cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from flyweight.anatomy import Shape, family_of
from flyweight.shrink.shapes import grid, portions

FAMILY = family_of(LlamaConfig())
TIED = LlamaConfig(tie_word_embeddings=True)
TEACHER = Shape(layers=8, hidden=256, mlp=1024, heads=8, kv_groups=4, head_dim=32, vocabulary=4096)


@pytest.mark.parametrize("keep", [0.2, 0.35, 0.6])
@pytest.mark.parametrize("tied", [True, False])
def test_the_grid_holds_shapes_of_about_the_share(keep: float, tied: bool) -> None:
    config = LlamaConfig(tie_word_embeddings=tied)
    whole = FAMILY.count(TEACHER, config)
    found = grid(FAMILY, TEACHER, config, keep)
    assert len(found) >= 3
    assert len({candidate.shape for candidate in found}) == len(found)
    for candidate in found:
        shape = candidate.shape
        assert 0.9 * keep * whole <= candidate.parameters <= 1.1 * keep * whole
        assert candidate.parameters == FAMILY.count(shape, config)
        assert candidate.share == candidate.parameters / whole
        assert shape.hidden % 32 == shape.mlp % 32 == 0
        assert shape.group_heads == TEACHER.group_heads


def test_the_grid_holds_only_what_transformers_loads() -> None:
    teacher = TEACHER.with_sizes(hidden=448, heads=14, kv_groups=2)
    found = [each for keep in (0.2, 0.35, 0.6) for each in grid(FAMILY, teacher, TIED, keep)]
    assert len(found) >= 3
    for candidate in found:
        FAMILY.config_for(LlamaConfig(), candidate.shape).validate()


def test_a_wider_slack_only_adds_shapes() -> None:
    near = {candidate.shape for candidate in grid(FAMILY, TEACHER, TIED, 0.3, 0.05)}
    far = {candidate.shape for candidate in grid(FAMILY, TEACHER, TIED, 0.3, 0.2)}
    assert near < far


@given(
    st.integers(1, 5000),
    st.lists(st.floats(0.01, 1), min_size=1, max_size=6).map(tuple),
    st.sampled_from([1, 32]),
)
def test_portions_are_whole_multiples_within_the_size(
    size: int, shares: tuple[float, ...], multiple: int
) -> None:
    found = portions(size, shares, multiple)
    assert found == sorted(set(found), reverse=True)
    for portion in found:
        assert 1 <= portion <= size
        assert portion % multiple == 0 or portion == size
        assert min(abs(portion - share * size) for share in shares) <= multiple
