"""Qwen 2: biases on queries, keys and values. Qwen 3: norms on each head's queries and keys."""

from __future__ import annotations

from dataclasses import replace

from flyweight.anatomy.family import Norm
from flyweight.anatomy.gguf import QWEN2 as QWEN2_GGUF
from flyweight.anatomy.gguf import QWEN3 as QWEN3_GGUF
from flyweight.anatomy.llama import (
    ATTENTION,
    ATTENTION_BIAS,
    BLOCK,
    EMBEDDINGS,
    LLAMA,
    MLP,
    PRE_NORMS,
    QKV_BIAS,
    told_by,
)

HEAD_NORMS = {
    f"{BLOCK}.self_attn.q_norm.weight": "head_dim",
    f"{BLOCK}.self_attn.k_norm.weight": "head_dim",
}


def head_norms(norm: Norm) -> dict[str, Norm]:
    """Norms of the queries and keys of each head."""
    attention = f"{BLOCK}.self_attn"
    return {
        f"{attention}.q_norm": replace(norm, reads=f"{attention}.q_proj"),
        f"{attention}.k_norm": replace(norm, reads=f"{attention}.k_proj"),
    }


QWEN2 = replace(
    LLAMA,
    name="qwen2",
    model_types=("qwen2",),
    parameters=EMBEDDINGS | PRE_NORMS | ATTENTION | QKV_BIAS | MLP,
    present={},
    gguf=QWEN2_GGUF,
)

QWEN3 = replace(
    LLAMA,
    name="qwen3",
    model_types=("qwen3",),
    parameters=EMBEDDINGS | PRE_NORMS | ATTENTION | ATTENTION_BIAS | HEAD_NORMS | MLP,
    present=told_by(ATTENTION_BIAS, "attention_bias"),
    norms=dict(LLAMA.norms) | head_norms(Norm()),
    gguf=QWEN3_GGUF,
)
