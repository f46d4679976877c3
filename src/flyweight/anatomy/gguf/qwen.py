"""Qwen 3: a norm on each head's queries and keys."""

from __future__ import annotations

from typing import Any

from flyweight.anatomy.gguf.keys import full_attention_keys, rope_keys, size_keys
from flyweight.anatomy.gguf.llama import ATTENTION, BLOCK, EMBEDDINGS, MLP, PRE_NORMS
from flyweight.anatomy.gguf.map import GgufMap

HEAD_NORMS = {
    f"{BLOCK}.self_attn.q_norm.weight": "blk.{i}.attn_q_norm.weight",
    f"{BLOCK}.self_attn.k_norm.weight": "blk.{i}.attn_k_norm.weight",
}


def qwen3_keys(config: Any) -> dict[str, Any]:
    """The metadata of a graph without sliding windows and without divisors of RoPE's rates."""
    return size_keys(config) | rope_keys(config.rope_parameters) | full_attention_keys(config)


QWEN3 = GgufMap(
    architecture="qwen3",
    tensors=EMBEDDINGS | PRE_NORMS | ATTENTION | HEAD_NORMS | MLP,
    metadata=qwen3_keys,
)
