"""What cannot be cut is refused in one line; whatever passes is cut and loaded."""

from __future__ import annotations

from typing import Any

import pytest
from cutting import random_keep

from flyweight.anatomy import family_of
from flyweight.errors import OptionError
from flyweight.shrink.check import check_shape, check_share
from flyweight.shrink.cut import cut_model
from flyweight.shrink.shapes import grid
from zoo import ZOO, build, logits

YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 2.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("llama", {"layers": 9}, r"--layers is 9: the teacher has 4"),
        ("llama", {"hidden": 0}, r"--hidden is 0"),
        ("llama", {"mlp": -32}, r"--mlp is -32"),
        ("llama", {"kv_groups": 5}, r"--kv-groups is 5: the teacher has 4"),
        ("llama", {"heads": 7}, r"--heads 7 does not fit 4 KV groups"),
        ("llama", {"kv_groups": 2}, r"give a multiple of 2, at most 4"),
        ("llama", {"hidden": 52}, r"--hidden 52 with 8 heads.*such as 48"),
        ("llama", {"head_dim": 6}, r"--head-dim 6: of 16 only every r-th.*one of 8, 4, 2"),
        ("mixtral", {"experts": 1}, r"--experts is 1: give at least 2"),
        ("mixtral", {"mlp": 33}, r"multiples of 8"),
        ("bert", {"hidden": 48}, r"--hidden 48 with 8 heads of 8.*Give --hidden 64"),
    ],
)
def test_a_shape_that_cannot_be_cut_is_refused(
    name: str, sizes: dict[str, int], message: str
) -> None:
    config = build(name).config
    family = family_of(config)
    with pytest.raises(OptionError, match=message) as error:
        check_shape(family, config, family.shape_of(config).with_sizes(**sizes))
    assert "\n" not in str(error.value)


def test_rope_whose_rates_hang_together_keeps_the_width_of_its_heads() -> None:
    config = build("llama", rope_parameters=YARN).config
    family = family_of(config)
    with pytest.raises(OptionError, match=r"RoPE of the kind 'yarn'"):
        check_shape(family, config, family.shape_of(config).with_sizes(head_dim=8))


@pytest.mark.parametrize("keep", [0.0, 1.0, float("nan")])
def test_what_is_no_share_is_refused(keep: float) -> None:
    with pytest.raises(OptionError, match=rf"--keep is {keep}"):
        check_share(keep)


@pytest.mark.parametrize("name", list(ZOO))
def test_shapes_of_the_grid_can_be_cut_and_run(name: str) -> None:
    model: Any = build(name)
    family = family_of(model.config)
    old = family.shape_of(model.config)
    found = [each for keep in (0.3, 0.5, 0.7) for each in grid(family, old, model.config, keep)]
    assert found
    for candidate in found[:: max(1, len(found) // 4)]:
        check_shape(family, model.config, candidate.shape)
        turning = family.turning(model.config)
        keep = random_keep(0, old, candidate.shape, turning, family.pinned)
        cut = cut_model(model, family, keep)
        assert cut.num_parameters() == candidate.parameters
        assert logits(cut).isfinite().all()
