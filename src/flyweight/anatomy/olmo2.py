"""OLMo 2: norms after attention and MLP instead of before, and over all queries and all keys."""

from __future__ import annotations

from dataclasses import replace

from flyweight.anatomy.family import Norm
from flyweight.anatomy.gguf import OLMO2 as OLMO2_GGUF
from flyweight.anatomy.llama import (
    ATTENTION,
    ATTENTION_BIAS,
    BLOCK,
    EMBEDDINGS,
    LLAMA,
    MLP,
    norms_of,
    told_by,
)
from flyweight.anatomy.qwen import head_norms

POST_NORMS = {
    f"{BLOCK}.post_attention_layernorm.weight": "hidden",
    f"{BLOCK}.post_feedforward_layernorm.weight": "hidden",
}
WIDE_NORMS = {
    f"{BLOCK}.self_attn.q_norm.weight": "(kv_groups group_heads head_dim)",
    f"{BLOCK}.self_attn.k_norm.weight": "(kv_groups head_dim)",
}

OLMO2 = replace(
    LLAMA,
    name="olmo2",
    model_types=("olmo2",),
    parameters=EMBEDDINGS | ATTENTION | ATTENTION_BIAS | WIDE_NORMS | POST_NORMS | MLP,
    present=told_by(ATTENTION_BIAS, "attention_bias"),
    norms=norms_of(POST_NORMS, Norm()) | head_norms(Norm()) | {"model.norm": Norm()},
    gguf=OLMO2_GGUF,
)
