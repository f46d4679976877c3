"""The families that llama.cpp's `llama` and `granite` graphs compute.

Qwen 2 and Phi 3 have graphs of their own there, which take a head's width from hidden over heads;
that is rarely so after a cut. They are Llamas with biases, or with weights stacked: the `llama`
graph computes them exactly, whatever their widths.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flyweight.anatomy.gguf.keys import full_attention_keys, rope_keys, size_keys
from flyweight.anatomy.gguf.map import OUTPUT, GgufMap
from flyweight.anatomy.gguf.rope import SCALINGS, context_keys, divisors, query_factors, turning

BLOCK = "model.layers.{i}"
HEADS, KV_HEADS = "num_attention_heads", "num_key_value_heads"


def biases(weights: dict[str, str]) -> dict[str, str]:
    """The biases of projections."""
    return {
        parameter.replace(".weight", ".bias"): tensor.replace(".weight", ".bias")
        for parameter, tensor in weights.items()
    }


EMBEDDINGS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": OUTPUT,
}
PRE_NORMS = {
    f"{BLOCK}.input_layernorm.weight": "blk.{i}.attn_norm.weight",
    f"{BLOCK}.post_attention_layernorm.weight": "blk.{i}.ffn_norm.weight",
}
OUT = {f"{BLOCK}.self_attn.o_proj.weight": "blk.{i}.attn_output.weight"}
QKV = {
    f"{BLOCK}.self_attn.q_proj.weight": "blk.{i}.attn_q.weight",
    f"{BLOCK}.self_attn.k_proj.weight": "blk.{i}.attn_k.weight",
    f"{BLOCK}.self_attn.v_proj.weight": "blk.{i}.attn_v.weight",
}
ATTENTION = OUT | QKV
DOWN = {f"{BLOCK}.mlp.down_proj.weight": "blk.{i}.ffn_down.weight"}
MLP = DOWN | {
    f"{BLOCK}.mlp.gate_proj.weight": "blk.{i}.ffn_gate.weight",
    f"{BLOCK}.mlp.up_proj.weight": "blk.{i}.ffn_up.weight",
}


def llama_keys(config: Any) -> dict[str, Any]:
    """The metadata of the `llama` graph, which has no sliding window."""
    keys = size_keys(config) | rope_keys(config.rope_parameters, SCALINGS)
    keys |= full_attention_keys(config)
    return keys | context_keys(config, keys["context_length"])


def granite_keys(config: Any) -> dict[str, Any]:
    """Llama's, and Granite's multipliers."""
    return llama_keys(config) | {
        "embedding_scale": float(config.embedding_multiplier),
        "residual_scale": float(config.residual_multiplier),
        "attention.scale": float(config.attention_multiplier),
        "logit_scale": float(config.logits_scaling),
    }


LLAMA = GgufMap(
    architecture="llama",
    tensors=EMBEDDINGS | PRE_NORMS | ATTENTION | biases(ATTENTION) | MLP | biases(MLP),
    metadata=llama_keys,
    interleaved={
        "blk.{i}.attn_q.weight": HEADS,
        "blk.{i}.attn_q.bias": HEADS,
        "blk.{i}.attn_k.weight": KV_HEADS,
        "blk.{i}.attn_k.bias": KV_HEADS,
    },
    turning=turning,
    factors=query_factors,
    computed=divisors,
)

QWEN2 = LLAMA

GRANITE = replace(LLAMA, architecture="granite", metadata=granite_keys)

PHI3 = replace(
    LLAMA,
    tensors=EMBEDDINGS
    | PRE_NORMS
    | OUT
    | DOWN
    | {
        f"{BLOCK}.self_attn.qkv_proj.weight": (
            "blk.{i}.attn_q.weight",
            "blk.{i}.attn_k.weight",
            "blk.{i}.attn_v.weight",
        ),
        f"{BLOCK}.mlp.gate_up_proj.weight": ("blk.{i}.ffn_gate.weight", "blk.{i}.ffn_up.weight"),
    },
    shares={
        "blk.{i}.attn_q.weight": HEADS,
        "blk.{i}.attn_k.weight": KV_HEADS,
        "blk.{i}.attn_v.weight": KV_HEADS,
    },
)

__all__ = ["GRANITE", "LLAMA", "PHI3", "QWEN2"]
