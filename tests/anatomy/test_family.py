"""The declarations against transformers' own models: every parameter, every size, every count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, MistralConfig, MistralForCausalLM

from flyweight.anatomy import AXES, Shape, families, family_of, logits_from_hidden
from flyweight.anatomy.family import parse_dimensions
from flyweight.errors import UnsupportedFamily

Build = Callable[..., Any]


def mistral(**changes: Any) -> Any:
    settings: dict[str, Any] = {
        "vocab_size": 80,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    return MistralForCausalLM(MistralConfig(**{**settings, **changes}))


@pytest.fixture(params=["llama tied", "llama untied", "mistral"])
def model(request: pytest.FixtureRequest, small_model: Build) -> Any:
    if request.param == "mistral":
        return mistral()
    return small_model(tied=request.param == "llama tied")


def real_sizes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in model.named_parameters()}


def test_every_parameter_is_declared_with_its_real_size(model: Any) -> None:
    family = family_of(model.config)
    declared = dict(family.tensors(family.shape_of(model.config), model.config.tie_word_embeddings))
    assert declared == real_sizes(model)


def test_every_dimension_of_every_parameter_runs_over_known_axes(model: Any) -> None:
    family = family_of(model.config)
    shape = family.shape_of(model.config)
    for name, parameter in model.state_dict().items():  # which holds a tied head too
        dimensions, layer = family.spell(name)
        assert layer == next((int(part) for part in name.split(".") if part.isdigit()), None)
        assert len(dimensions) == parameter.dim()
        for size, dimension in zip(parameter.shape, dimensions, strict=True):
            assert set(dimension) <= set(AXES) - {"layers"}
            product = 1
            for axis in dimension:
                product *= shape.size(axis)
            assert size == product, name


def test_the_count_is_the_number_of_parameters(model: Any) -> None:
    family = family_of(model.config)
    shape = family.shape_of(model.config)
    assert family.count(shape, model.config.tie_word_embeddings) == model.num_parameters()


def test_a_config_for_a_shape_describes_that_shape(model: Any) -> None:
    family = family_of(model.config)
    before = model.config.to_dict()
    wanted = Shape(layers=2, hidden=48, mlp=56, heads=3, kv_groups=1, head_dim=16, vocabulary=80)
    config = family.config_for(model.config, wanted)
    assert type(config) is type(model.config)
    assert family.shape_of(config) == wanted
    assert config.rms_norm_eps == pytest.approx(model.config.rms_norm_eps * 64 / 48)
    assert model.config.to_dict() == before
    made = type(model)(config)
    assert real_sizes(made) == dict(family.tensors(wanted, config.tie_word_embeddings))
    assert family.config_for(model.config, family.shape_of(model.config)).to_dict() == before


def test_what_a_config_leaves_open_is_what_transformers_makes_of_it() -> None:
    made = mistral(head_dim=None, num_key_value_heads=8)
    sparse = SimpleNamespace(**made.config.to_dict() | {"model_type": "llama"})
    del sparse.head_dim, sparse.num_key_value_heads
    shape = family_of(sparse).shape_of(sparse)
    assert (shape.head_dim, shape.kv_groups, shape.group_heads) == (8, 8, 1)
    assert dict(family_of(sparse).tensors(shape, False)) == real_sizes(made)


def test_an_unknown_architecture_is_told_which_are_known() -> None:
    with pytest.raises(UnsupportedFamily, match=r"'gpt2'.*llama, mistral"):
        family_of(GPT2Config())


def test_families_claim_different_architectures_and_cut_declared_axes() -> None:
    claimed = [name for family in families() for name in family.model_types]
    assert len(claimed) == len(set(claimed))
    for family in families():
        spelled = {
            axis
            for spelling in family.parameters.values()
            for dimension in parse_dimensions(spelling)
            for axis in dimension
        }
        assert set(family.cuttable) <= spelled | {"layers"} <= set(AXES)


def test_an_undeclared_parameter_is_not_spelled(small_model: Build) -> None:
    biased = small_model(attention_bias=True)
    family = family_of(biased.config)
    undeclared = [name for name in biased.state_dict() if name.endswith(".bias")]
    assert len(undeclared) == 4 * 4
    for name in undeclared:
        with pytest.raises(KeyError):
            family.spell(name)


def test_dimensions_are_spelled_as_einops_spells_them() -> None:
    assert parse_dimensions("(kv_groups head_dim) hidden") == (
        ("kv_groups", "head_dim"),
        ("hidden",),
    )
    assert parse_dimensions("hidden") == (("hidden",),)


@pytest.mark.parametrize("tied", [True, False])
def test_logits_from_hidden_are_the_models_own(small_model: Build, tied: bool) -> None:
    model = small_model(tied)
    ids = torch.arange(12).view(2, 6)
    with torch.inference_mode():
        hidden = model.base_model(ids).last_hidden_state
        assert torch.equal(logits_from_hidden(model, hidden), model(ids).logits)


def test_a_shape_tells_its_sizes_and_takes_new_ones() -> None:
    shape = family_of(LlamaConfig()).shape_of(LlamaConfig())
    assert Shape(**shape.as_dict()) == shape
    assert shape.with_sizes(layers=3, mlp=None) == replace(shape, layers=3)
    for word in ("32 layers x 4096", "MLP 11008", "32 heads in 32 groups"):
        assert word in str(shape)
