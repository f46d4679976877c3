"""Mixtures of experts: in files each expert has tensors of its own, in GGUF a block has one.

The names of memory, where a block has one too, stand beside those of files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flyweight.anatomy.gguf.llama import (
    ATTENTION,
    BLOCK,
    EMBEDDINGS,
    LLAMA,
    PRE_NORMS,
    llama_keys,
)
from flyweight.anatomy.gguf.qwen import HEAD_NORMS, QWEN3, qwen3_keys
from flyweight.errors import UnsupportedFamily

ROUTER = "blk.{i}.ffn_gate_inp.weight"
GATE, UP, DOWN = (f"blk.{{i}}.ffn_{name}_exps.weight" for name in ("gate", "up", "down"))
EXPERTS = {
    f"{BLOCK}.mlp.gate.weight": ROUTER,
    f"{BLOCK}.mlp.experts.gate_up_proj": (GATE, UP),
    f"{BLOCK}.mlp.experts.down_proj": DOWN,
}
MIXTRAL_FILES = f"{BLOCK}.block_sparse_moe"
QWEN_FILES = f"{BLOCK}.mlp.experts.{{e}}"


def expert_keys(config: Any) -> dict[str, Any]:
    """How many experts there are, and how many of them a token takes."""
    return {
        "expert_count": config.num_local_experts,
        "expert_used_count": config.num_experts_per_tok,
    }


def qwen3_moe_keys(config: Any) -> dict[str, Any]:
    """Qwen 3's metadata, and that of its experts."""
    if not config.norm_topk_prob:
        raise UnsupportedFamily(
            "norm_topk_prob is false: llama.cpp's graph of qwen3_moe always makes the chosen "
            "experts' weights sum to 1, so there is no GGUF"
        )
    width = {"expert_feed_forward_length": config.moe_intermediate_size}
    return qwen3_keys(config) | expert_keys(config) | width


MIXTRAL = replace(
    LLAMA,
    tensors=EMBEDDINGS
    | PRE_NORMS
    | ATTENTION
    | EXPERTS
    | {
        f"{MIXTRAL_FILES}.gate.weight": ROUTER,
        f"{MIXTRAL_FILES}.experts.{{e}}.w1.weight": GATE,
        f"{MIXTRAL_FILES}.experts.{{e}}.w2.weight": DOWN,
        f"{MIXTRAL_FILES}.experts.{{e}}.w3.weight": UP,
    },
    metadata=lambda config: llama_keys(config) | expert_keys(config),
)

QWEN3_MOE = replace(
    QWEN3,
    architecture="qwen3moe",
    tensors=EMBEDDINGS
    | PRE_NORMS
    | ATTENTION
    | HEAD_NORMS
    | EXPERTS
    | {
        f"{QWEN_FILES}.gate_proj.weight": GATE,
        f"{QWEN_FILES}.up_proj.weight": UP,
        f"{QWEN_FILES}.down_proj.weight": DOWN,
    },
    metadata=qwen3_moe_keys,
)
