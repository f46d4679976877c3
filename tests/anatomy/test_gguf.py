"""GGUF names, the rows that turn, and RoPE's frequencies, against transformers' own formulas."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from flyweight.anatomy.gguf import LLAMA, interleave
from flyweight.errors import UnsupportedFamily


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


def test_llama3_frequencies_are_those_of_transformers() -> None:
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
    plain = 500000.0 ** -(torch.arange(0, 64, 2) / 64)
    wanted, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    found = plain / LLAMA.computed(config)["rope_freqs.weight"]
    torch.testing.assert_close(found, wanted)


def test_names() -> None:
    tied, free = (SimpleNamespace(tie_word_embeddings=tied) for tied in (True, False))
    name = LLAMA.name("model.layers.11.self_attn.o_proj.weight", free)
    assert name == "blk.11.attn_output.weight"
    assert LLAMA.name("lm_head.weight", free) == "output.weight"
    assert LLAMA.name("lm_head.weight", tied) is None
    assert LLAMA.name("model.layers.0.self_attn.rotary_emb.inv_freq", free) is None
    with pytest.raises(UnsupportedFamily, match="q_norm"):
        LLAMA.name("model.layers.0.self_attn.q_norm.weight", free)


def test_metadata_keeps_a_head_that_is_not_hidden_over_heads() -> None:
    config = LlamaConfig(hidden_size=96, num_attention_heads=4, head_dim=32, rope_parameters=None)
    keys = LLAMA.metadata(config)
    assert keys["attention.key_length"] == keys["rope.dimension_count"] == 32
    assert keys["rope.freq_base"] == 10000.0


def test_rope_that_gguf_cannot_say_is_refused() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(UnsupportedFamily, match="dynamic"):
        LLAMA.metadata(LlamaConfig(rope_parameters=rope))
