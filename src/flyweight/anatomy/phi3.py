"""Phi 3: queries, keys and values in one weight, gate and up in another; RoPE may turn a part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flyweight.anatomy.gguf import PHI3 as PHI3_GGUF
from flyweight.anatomy.llama import BLOCK, EMBEDDINGS, LLAMA, PRE_NORMS


def turning(config: Any) -> int:
    """Dimensions of a head that RoPE turns."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(width * config.rope_parameters.get("partial_rotary_factor", 1.0))


PHI3 = replace(
    LLAMA,
    name="phi3",
    model_types=("phi3",),
    parameters=EMBEDDINGS
    | PRE_NORMS
    | {
        f"{BLOCK}.self_attn.qkv_proj.weight": (
            "(kv_groups group_heads head_dim + kv_groups head_dim + kv_groups value_dim) hidden"
        ),
        f"{BLOCK}.self_attn.o_proj.weight": "hidden (kv_groups group_heads value_dim)",
        f"{BLOCK}.mlp.gate_up_proj.weight": "(mlp + mlp) hidden",
        f"{BLOCK}.mlp.down_proj.weight": "hidden mlp",
    },
    present={},
    rotary=turning,
    gguf=PHI3_GGUF,
)
