"""A file's weights in torch against what the gguf package reads in the file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import AutoModelForCausalLM

from flyweight.anatomy.gguf import LLAMA
from flyweight.anatomy.inputs import measure_inputs
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.rounding import rounded

PLACES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def place_of(parameter: str) -> str:
    """The GGUF name that llama.cpp gives a parameter."""
    name = parameter.removesuffix(".weight")
    if not name.startswith("model.layers."):
        return f"{PLACES[name]}.weight"
    _, _, layer, inside = name.split(".", 3)
    return f"blk.{layer}.{PLACES[inside]}.weight"


def in_pairs(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """The rows as llama.cpp has them: row i of a head beside row i + head_dim / 2."""
    half = head_dim // 2
    rows = [
        head + i + side * half
        for head in range(0, len(weight), head_dim)
        for i in range(half)
        for side in (0, 1)
    ]
    return weight[rows]


@pytest.mark.parametrize("bits", [16, 8, 5, 4])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"hidden_size": 48, "head_dim": 16, "intermediate_size": 80},
    ],
    ids=["untied", "tied", "rows that fit no block"],
)
def test_weights_are_those_of_the_file(
    make_llama: Callable[..., Path], tmp_path: Path, bits: int, changes: dict[str, Any]
) -> None:
    checkpoint = make_llama(tmp_path / "model", **changes)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    inputs = measure_inputs(model, [[0, 9, 8, 7], [0, 5]])
    write_gguf(checkpoint, tmp_path / "model.gguf", bits, LLAMA, inputs)
    before = {name: each.clone() for name, each in model.named_parameters()}
    found = rounded(copy.deepcopy(model), tmp_path / "model.gguf", LLAMA)

    stored = {
        tensor.name: dequantize(tensor.data, tensor.tensor_type)
        for tensor in GGUFReader(tmp_path / "model.gguf").tensors
    }
    moved = 0
    for name, parameter in found.named_parameters():
        weight = parameter.detach().numpy()
        if "q_proj" in name or "k_proj" in name:
            weight = in_pairs(weight, model.config.head_dim)
        np.testing.assert_array_equal(weight, stored.pop(place_of(name)), err_msg=name)
        moved += int((parameter != before[name]).any())
    assert not stored
    assert moved > 0 or bits == 16
    assert all(torch.equal(before[name], each) for name, each in model.named_parameters())
    tied = model.config.tie_word_embeddings
    assert (found.lm_head.weight is found.model.embed_tokens.weight) == tied
