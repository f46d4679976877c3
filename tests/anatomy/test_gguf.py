"""GGUF names and keys against the gguf package, turned rows and RoPE's rates against formulas."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from gguf.constants import MODEL_ARCH_NAMES, MODEL_TENSORS, TENSOR_NAMES, Keys
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from flyweight.anatomy import Family, family_of
from flyweight.anatomy.gguf import LLAMA, GgufMap, interleave
from flyweight.errors import UnsupportedFamily
from zoo import SIZES, ZOO


def test_interleaved_rows_turned_as_pairs_give_the_same_attention() -> None:
    heads, width, length = 3, 8, 5
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(heads * width, 16, generator=generator) for _ in range(2)]
    hidden = torch.randn(length, 16, generator=generator)
    angles = torch.arange(length)[:, None] * 10.0 ** -torch.arange(0, 4)[None, :]  # [T, D/2]

    q, k = ((hidden @ w.T).view(1, length, heads, width).transpose(1, 2) for w in weights)
    whole = torch.cat([angles, angles], -1)[None]
    q, k = apply_rotary_pos_emb(q, k, whole.cos(), whole.sin())
    wanted = q @ k.transpose(-1, -2)

    def turned(weight: torch.Tensor) -> torch.Tensor:
        rows = (hidden @ interleave(weight, heads).T).view(length, heads, width // 2, 2)
        turn = torch.polar(torch.ones_like(angles), angles)[:, None]  # neighbours are one number
        pairs = torch.view_as_real(torch.view_as_complex(rows.contiguous()) * turn)
        return pairs.reshape(length, heads, width).transpose(0, 1)

    found = turned(weights[0]) @ turned(weights[1]).transpose(-1, -2)
    torch.testing.assert_close(found[None], wanted)


def test_a_bias_is_interleaved_like_its_rows() -> None:
    weight = torch.randn(12, 7)
    assert torch.equal(interleave(weight, 2)[:, 3], interleave(weight[:, 3].clone(), 2))


def test_rows_that_do_not_turn_stay_behind_those_that_do() -> None:
    weight = torch.arange(16).view(16, 1)  # two heads of 8, of which 4 turn
    found = interleave(weight, 2, turning=4).flatten().tolist()
    assert found == [0, 2, 1, 3, 4, 5, 6, 7, 8, 10, 9, 11, 12, 13, 14, 15]


def llama3_rate(rate: float, factor: float, low: float, high: float, context: float) -> float:
    """A rate of RoPE in Llama 3.1, as Meta's llama_models/llama3/model.py scales it."""
    wavelength = 2 * math.pi / rate
    if wavelength < context / high:
        return rate
    if wavelength > context / low:
        return rate / factor
    share = (context / wavelength - low) / (high - low)
    return (1 - share) * rate / factor + share * rate


def test_llama3_frequencies_are_those_of_meta() -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(
        hidden_size=2048, num_attention_heads=32, head_dim=64, rope_parameters=rope
    )
    plain = (500000.0 ** -(torch.arange(0, 64, 2) / 64)).tolist()
    found = torch.tensor(plain) / LLAMA.computed(config)["rope_freqs.weight"]
    wanted = [llama3_rate(rate, 32.0, 1.0, 4.0, 8192.0) for rate in plain]
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-5, atol=0.0)


def test_names() -> None:
    tied, free = (SimpleNamespace(tie_word_embeddings=tied) for tied in (True, False))
    [part] = LLAMA.parts("model.layers.11.self_attn.o_proj.weight", free)
    assert (part.tensor, part.template) == (
        "blk.11.attn_output.weight",
        "blk.{i}.attn_output.weight",
    )
    assert [part.tensor for part in LLAMA.parts("lm_head.weight", free)] == ["output.weight"]
    assert LLAMA.parts("lm_head.weight", tied) == ()
    assert LLAMA.parts("model.layers.0.self_attn.rotary_emb.inv_freq", free) == ()
    with pytest.raises(UnsupportedFamily, match="q_norm"):
        LLAMA.parts("model.layers.0.self_attn.q_norm.weight", free)


def test_metadata_keeps_a_head_that_is_not_hidden_over_heads() -> None:
    config = LlamaConfig(hidden_size=96, num_attention_heads=4, head_dim=32, rope_parameters=None)
    keys = LLAMA.metadata(config)
    assert keys["attention.key_length"] == keys["rope.dimension_count"] == 32
    assert keys["rope.freq_base"] == 10000.0


def test_rope_that_gguf_cannot_say_is_refused() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(UnsupportedFamily, match="dynamic"):
        LLAMA.metadata(LlamaConfig(rope_parameters=rope))


def maps() -> Iterator[tuple[Any, Family, GgufMap]]:
    """A tiny config of each family that has a map, with the family and the map."""
    for name, (config_class, _, changes) in ZOO.items():
        config = getattr(transformers, config_class)(**{**SIZES, **changes, "vocab_size": 320})
        family = family_of(config)
        if name == "olmo2":
            config.hidden_size = config.num_attention_heads * config.head_dim
        if family.gguf is not None:
            yield config, family, family.gguf


def test_names_and_keys_are_those_of_the_gguf_package() -> None:
    spelled = {
        value
        for each in vars(Keys).values()
        if isinstance(each, type)
        for value in vars(each).values()
    }
    architectures = {name: arch for arch, name in MODEL_ARCH_NAMES.items()}
    seen = set()
    for config, family, gguf_map in maps():
        known = {
            TENSOR_NAMES[tensor] for tensor in MODEL_TENSORS[architectures[gguf_map.architecture]]
        }
        for parameter, _ in family.tensors(family.shape_of(config), config):
            for part in gguf_map.parts(parameter, config):
                name = part.template.rpartition(".")[0].replace("{i}", "{bid}")
                assert name in known, (family.name, parameter)
        for key in gguf_map.metadata(config):
            assert f"{{arch}}.{key}" in spelled, (family.name, key)
        seen.add(family.name)
    assert seen >= {"llama", "qwen2", "qwen3", "granite", "gemma2", "gemma3", "phi3", "olmo2"}
    assert seen >= {"stablelm", "mixtral", "qwen3_moe"}


def config(name: str, **changes: Any) -> Any:
    config_class, _, settings = ZOO[name]
    return getattr(transformers, config_class)(**{**SIZES, **settings, **changes})


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("llama", {"hidden_act": "gelu"}, "'gelu' cannot be written to GGUF"),
        ("gemma2", {"tie_word_embeddings": False}, "no output embedding apart"),
        ("gemma3", {"attn_logit_softcapping": 5.0}, "no soft cap on attention"),
        ("qwen3", {"rope_parameters": YARN}, "'yarn' cannot be written to GGUF; default, linear"),
        ("qwen3_moe", {"norm_topk_prob": False}, "norm_topk_prob is false"),
        ("olmo2", {}, "8 heads of 16 are not the hidden size 64"),
        ("stablelm", {"qk_layernorm": True}, "qk_layernorm is true"),
        ("stablelm", {"hidden_act": "gelu"}, "'gelu' cannot be written to GGUF"),
        ("stablelm", {"rope_parameters": YARN}, "'yarn' cannot be written to GGUF; default"),
    ],
)
def test_what_a_graph_cannot_compute_is_refused(
    name: str, changes: dict[str, Any], why: str
) -> None:
    said = config(name, **changes)
    gguf_map = family_of(said).gguf
    assert gguf_map is not None
    with pytest.raises(UnsupportedFamily, match=why):
        gguf_map.metadata(said)


def test_the_epsilon_of_layer_norms_has_a_key_of_its_own() -> None:
    said = config("stablelm", layer_norm_eps=0.25)
    gguf_map = family_of(said).gguf
    assert gguf_map is not None
    keys = gguf_map.metadata(said)
    assert keys["attention.layer_norm_epsilon"] == 0.25
    assert "attention.layer_norm_rms_epsilon" not in keys


@pytest.mark.parametrize("name", ["qwen3", "qwen3_moe", "gemma2", "olmo2"])
def test_biases_that_a_graph_does_not_add_are_refused(name: str) -> None:
    gguf_map = family_of(config(name)).gguf
    assert gguf_map is not None
    with pytest.raises(UnsupportedFamily, match=r"k_proj\.bias.*no place"):
        gguf_map.parts("model.layers.0.self_attn.k_proj.bias", config(name))


@pytest.mark.parametrize(
    ("name", "changes", "context"),
    [
        ("mistral", {}, 128),
        ("mistral", {"sliding_window": 100}, 100),
        ("phi3", {"sliding_window": 100}, 100),
        ("qwen2", {"sliding_window": 100}, 128),  # which no layer uses
        ("gemma2", {}, 128),  # whose graph has the window
    ],
)
def test_without_a_window_a_graph_is_right_up_to_its_length(
    name: str, changes: dict[str, Any], context: int
) -> None:
    said = config(name, **changes)
    gguf_map = family_of(said).gguf
    assert gguf_map is not None
    assert gguf_map.metadata(said)["context_length"] == context
