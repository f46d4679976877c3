"""The declarations against transformers' own models: every parameter, every size, every count."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, MllamaConfig, MllamaForConditionalGeneration

from flyweight.anatomy import AXES, Shape, families, family_of, logits_from_hidden
from flyweight.anatomy.family import Family, parse_dimensions
from flyweight.errors import UnsupportedFamily
from seeing import tiny_mllama
from zoo import DECODERS, ZOO, build, ids, logits

Build = Callable[..., Any]


@pytest.fixture(params=list(ZOO), scope="module")
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


@pytest.fixture(params=["tiny", "Llama 3.2 11B Vision"], scope="module")
def seeing(request: pytest.FixtureRequest) -> Any:
    """A model with eyes: a tiny one, or Meta's in its sizes, which takes no memory."""
    if request.param == "tiny":
        return tiny_mllama()
    with torch.device("meta"):
        return MllamaForConditionalGeneration(MllamaConfig())


def real_sizes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in model.named_parameters()}


def length(family: Family, config: Any, axis: str) -> int:
    """The length of an axis that can be cut, or of a dimension that is declared fixed."""
    if axis.isdigit():
        return int(axis)
    assert (axis in AXES and axis != "layers") != (axis in family.fixed), axis
    shape, told = family.shape_of(config), family.fixed.get(axis)
    if told is None:
        return shape.size(axis)
    return attrgetter(told)(config) if isinstance(told, str) else told(config)


def test_every_parameter_is_declared_with_its_real_size(model: Any) -> None:
    is_declared_with_its_real_size(model)


def test_every_dimension_belongs_to_one_axis_or_is_declared_fixed(model: Any) -> None:
    belongs_to_one_axis_or_is_fixed(model)


def test_all_of_a_model_with_eyes_is_declared(seeing: Any) -> None:
    is_declared_with_its_real_size(seeing)
    belongs_to_one_axis_or_is_fixed(seeing)
    family = family_of(seeing.config)
    assert family.count(family.shape_of(seeing.config), seeing.config) == seeing.num_parameters()


def is_declared_with_its_real_size(model: Any) -> None:
    family = family_of(model.config)
    declared = dict(family.tensors(family.shape_of(model.config), model.config))
    assert declared == real_sizes(model)


def belongs_to_one_axis_or_is_fixed(model: Any) -> None:
    family = family_of(model.config)
    for name, parameter in model.state_dict().items():  # which holds a tied head too
        place = family.spell(name)
        assert place.layer == next((int(part) for part in name.split(".") if part.isdigit()), None)
        assert len(place.dimensions) == parameter.dim()
        for size, dimension in zip(parameter.shape, place.dimensions, strict=True):
            lengths = [[length(family, model.config, axis) for axis in term] for term in dimension]
            assert size == sum(map(math.prod, lengths)), name


def test_every_parameter_in_a_saved_folder_is_declared(model: Any, tmp_path: Any) -> None:
    """Files may use other names than memory does: those of a mixture's experts."""
    from safetensors import safe_open

    model.save_pretrained(tmp_path)
    family = family_of(model.config)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as tensors:
        for name in sorted(tensors.keys()):
            dimensions = family.spell(name).dimensions
            sizes = tensors.get_slice(name).get_shape()
            for size, dimension in zip(sizes, dimensions, strict=True):
                lengths = [[length(family, model.config, axis) for axis in t] for t in dimension]
                assert size == sum(map(math.prod, lengths)), name


def test_the_count_is_the_number_of_parameters(model: Any) -> None:
    family = family_of(model.config)
    assert family.count(family.shape_of(model.config), model.config) == model.num_parameters()


def test_a_config_for_a_shape_describes_that_shape(model: Any) -> None:
    family = family_of(model.config)
    before, old = model.config.to_dict(), family.shape_of(model.config)
    sizes = {"layers": 2, "hidden": 48, "mlp": 56, "heads": 3, "kv_groups": 3, "vocabulary": 70}
    experts = 4 if old.experts else 0
    wanted = replace(old, **sizes, head_dim=16 if family.hidden_is_heads else 8, experts=experts)
    config = family.config_for(model.config, wanted, [0, 3])
    assert type(config) is type(model.config)
    assert family.shape_of(config) == wanted
    for name in family.per_layer:
        if before.get(name):
            assert getattr(config, name) == [before[name][0], before[name][3]]
    assert model.config.to_dict() == before
    made = type(model)(config)
    assert real_sizes(made) == dict(family.tensors(wanted, config))
    same = family.config_for(model.config, family.shape_of(model.config))
    assert same.to_dict() == before


def test_a_config_with_eyes_says_which_blocks_look_and_where_features_are_taken() -> None:
    model = tiny_mllama()
    family, before = family_of(model.config), model.config.to_dict()
    assert family.config_for(model.config, family.shape_of(model.config)).to_dict() == before
    old = family.shape_of(model.config)
    wanted = replace(old, layers=4, hidden=48, heads=3, kv_groups=3, encoder_layers=3, mlp=56)
    config = family.config_for(
        model.config, wanted, [0, 1, 3, 5], other_blocks={"encoder_layers": [0, 2, 4]}
    )
    assert family.shape_of(config) == wanted
    assert config.text_config.cross_attention_layers == [2]  # the third that stays, of 3 and 4
    # behind blocks 1 and 3 of five; of those that stay, behind the first and the second
    assert config.vision_config.intermediate_layers_indices == [-3, -2]
    assert real_sizes(type(model)(config)) == dict(family.tensors(wanted, config))
    assert model.config.to_dict() == before


def test_rope_turns_as_much_of_a_head_as_is_declared(model: Any) -> None:
    turning = {2 * len(rates) for name, rates in model.named_buffers() if name.endswith("inv_freq")}
    assert (turning or {0}) == {family_of(model.config).turning(model.config)}


def test_what_a_config_leaves_open_is_what_transformers_makes_of_it() -> None:
    made = build("mistral", head_dim=None, num_key_value_heads=8)
    config = LlamaConfig.from_dict(made.config.to_dict() | {"model_type": "llama"})
    del config.head_dim, config.num_key_value_heads
    shape = family_of(config).shape_of(config)
    assert (shape.head_dim, shape.kv_groups, shape.group_heads) == (8, 8, 1)
    assert dict(family_of(config).tensors(shape, made.config)) == real_sizes(made)


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
            for term in dimension
            for axis in term
            if not axis.isdigit()
        }
        spelled |= set(
            family.other_blocks.values()
        )  # what counts a list of blocks is in no dimension
        encoder = {"group_heads"} - set(family.cuttable)  # BERT's groups are of one head
        assert set(family.cuttable) | set(family.fixed) | encoder == spelled | {"layers"}
        assert set(family.cuttable) <= set(AXES)


def test_an_undeclared_parameter_is_not_spelled() -> None:
    family = family_of(LlamaConfig())
    for name in ("model.layers.0.self_attn.gate.weight", "model.embed_positions.weight"):
        with pytest.raises(KeyError):
            family.spell(name)


def test_dimensions_are_spelled_as_einops_spells_them() -> None:
    heads = ("kv_groups", "head_dim")
    assert parse_dimensions("(kv_groups head_dim) hidden") == ((heads,), (("hidden",),))
    assert parse_dimensions("(mlp + kv_groups head_dim)") == ((("mlp",), heads),)
    assert parse_dimensions("hidden") == ((("hidden",),),)


@pytest.mark.parametrize("name", DECODERS)
def test_logits_from_hidden_are_the_models_own(name: str) -> None:
    model = build(name)
    with torch.inference_mode():
        hidden = model.base_model(ids(model)).last_hidden_state
        torch.testing.assert_close(
            logits_from_hidden(model, hidden), logits(model), rtol=1e-6, atol=1e-6
        )


def test_a_shape_tells_its_sizes_and_takes_new_ones() -> None:
    shape = family_of(LlamaConfig()).shape_of(LlamaConfig())
    assert Shape(**shape.as_dict()) == shape
    assert shape.with_sizes(layers=3, mlp=None) == replace(shape, layers=3)
    for word in ("32 layers x 4096", "MLP 11008", "32 heads in 32 groups"):
        assert word in str(shape)
