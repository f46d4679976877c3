"""Gemma 2 and 3: norms are stored with their 1, and the queries make up for the attention scale.

llama.cpp's graphs divide scores by the root of a head's width (in the largest model, which they
know by its number of layers, of hidden over heads), whatever the config says.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from flyweight.anatomy.gguf.keys import head_dim, rope_keys, size_keys, window_keys
from flyweight.anatomy.gguf.llama import ATTENTION, BLOCK, EMBEDDINGS, MLP
from flyweight.anatomy.gguf.map import GgufMap
from flyweight.anatomy.gguf.qwen import HEAD_NORMS
from flyweight.errors import UnsupportedFamily

NORMS = {
    "model.norm.weight": "output_norm.weight",
    f"{BLOCK}.input_layernorm.weight": "blk.{i}.attn_norm.weight",
    f"{BLOCK}.post_attention_layernorm.weight": "blk.{i}.post_attention_norm.weight",
    f"{BLOCK}.pre_feedforward_layernorm.weight": "blk.{i}.ffn_norm.weight",
    f"{BLOCK}.post_feedforward_layernorm.weight": "blk.{i}.post_ffw_norm.weight",
}
NO_CAP = 1e6  # llama.cpp has caps of its own where a file has none


def query_factor(config: Any, largest: int) -> float:
    """By what queries are multiplied; the largest model has `largest` layers."""
    width = head_dim(config)
    if config.num_hidden_layers == largest:
        width = config.hidden_size // config.num_attention_heads
    return math.sqrt(width / config.query_pre_attn_scalar)


def gemma2_keys(config: Any) -> dict[str, Any]:
    """Gemma 2's metadata, with its soft caps; UnsupportedFamily for an output matrix of its own."""
    if not config.tie_word_embeddings:
        raise UnsupportedFamily(
            "llama.cpp's graph of gemma2 has no output embedding apart from the input's. Tie them "
            "(prune --tied), or export without GGUF"
        )
    everything = {  # the graph wants some layer with a window: one that hides nothing
        "attention.sliding_window": config.max_position_embeddings,
        "attention.sliding_window_pattern": [True] * config.num_hidden_layers,
    }
    return {
        **size_keys(config, "gelu_pytorch_tanh"),
        **rope_keys(config.rope_parameters),
        **(window_keys(config) or everything),
        "attn_logit_softcapping": float(config.attn_logit_softcapping or NO_CAP),
        "final_logit_softcapping": float(config.final_logit_softcapping or NO_CAP),
    }


def gemma3_keys(config: Any) -> dict[str, Any]:
    """Gemma 3's metadata: local and global layers turn at rates of their own."""
    if config.attn_logit_softcapping:
        raise UnsupportedFamily(
            "llama.cpp's graph of gemma3 has no soft cap on attention scores: export without GGUF"
        )
    rope = config.rope_parameters
    local = rope_keys(rope["sliding_attention"], ("default",))
    keys = {
        **size_keys(config, "gelu_pytorch_tanh"),
        **rope_keys(rope["full_attention"]),
        **window_keys(config),
        "rope.freq_base_swa": local["rope.freq_base"],
    }
    if config.final_logit_softcapping:
        keys["final_logit_softcapping"] = float(config.final_logit_softcapping)
    return keys


GEMMA2 = GgufMap(
    architecture="gemma2",
    tensors=EMBEDDINGS | NORMS | ATTENTION | MLP,
    metadata=gemma2_keys,
    offsets=dict.fromkeys(NORMS.values(), 1.0),
    factors=lambda config: {"blk.{i}.attn_q.weight": query_factor(config, largest=46)},
)

GEMMA3 = replace(
    GEMMA2,
    architecture="gemma3",
    tensors={**GEMMA2.tensors, **HEAD_NORMS},
    metadata=gemma3_keys,
    offsets=dict.fromkeys([*NORMS.values(), *HEAD_NORMS.values()], 1.0),
    factors=lambda config: {"blk.{i}.attn_q_norm.weight": query_factor(config, largest=62)},
)
