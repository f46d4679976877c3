"""Gemma 2 and 3 (text): norms around both halves of a block that multiply by 1 + w, an explicit
attention scale, embeddings times sqrt(hidden), soft caps on scores (inside) and logits (here)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flyweight.anatomy.family import Norm
from flyweight.anatomy.gguf import GEMMA2 as GEMMA2_GGUF
from flyweight.anatomy.gguf import GEMMA3 as GEMMA3_GGUF
from flyweight.anatomy.llama import (
    ATTENTION,
    ATTENTION_BIAS,
    BLOCK,
    EMBEDDINGS,
    LLAMA,
    MLP,
    PRE_NORMS,
    norms_of,
    told_by,
)
from flyweight.anatomy.qwen import HEAD_NORMS, head_norms

ONE_MORE = Norm(offset=1.0)
NORMS = PRE_NORMS | {
    f"{BLOCK}.pre_feedforward_layernorm.weight": "hidden",
    f"{BLOCK}.post_feedforward_layernorm.weight": "hidden",
}


def soft_cap(config: Any, logits: Any) -> Any:
    """cap x tanh(logits / cap), where the config has a cap."""
    cap = config.final_logit_softcapping
    return logits if cap is None else (logits / cap).tanh() * cap


GEMMA2 = replace(
    LLAMA,
    name="gemma2",
    model_types=("gemma2",),
    parameters=EMBEDDINGS | NORMS | ATTENTION | ATTENTION_BIAS | MLP,
    present=told_by(ATTENTION_BIAS, "attention_bias"),
    norms=norms_of(NORMS, ONE_MORE) | {"model.norm": ONE_MORE},
    scales_attention=False,
    scales_embedding=True,
    logits=soft_cap,
    gguf=GEMMA2_GGUF,
)

GEMMA3 = replace(
    GEMMA2,
    name="gemma3",
    model_types=("gemma3_text",),
    parameters=dict(GEMMA2.parameters) | HEAD_NORMS,
    norms=dict(GEMMA2.norms) | head_norms(ONE_MORE),
    gguf=GEMMA3_GGUF,
)
