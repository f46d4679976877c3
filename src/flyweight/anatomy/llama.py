"""Llama and what shares its blocks (Mistral): RMSNorm, grouped-query attention, gated MLP."""

from __future__ import annotations

from flyweight.anatomy.family import Family
from flyweight.anatomy.gguf import LLAMA as LLAMA_GGUF

BLOCK = "model.layers.{layer}"

LLAMA = Family(
    name="llama",
    model_types=("llama", "mistral"),
    parameters={
        "model.embed_tokens.weight": "vocabulary hidden",
        f"{BLOCK}.input_layernorm.weight": "hidden",
        f"{BLOCK}.self_attn.q_proj.weight": "(kv_groups group_heads head_dim) hidden",
        f"{BLOCK}.self_attn.k_proj.weight": "(kv_groups head_dim) hidden",
        f"{BLOCK}.self_attn.v_proj.weight": "(kv_groups head_dim) hidden",
        f"{BLOCK}.self_attn.o_proj.weight": "hidden (kv_groups group_heads head_dim)",
        f"{BLOCK}.post_attention_layernorm.weight": "hidden",
        f"{BLOCK}.mlp.gate_proj.weight": "mlp hidden",
        f"{BLOCK}.mlp.up_proj.weight": "mlp hidden",
        f"{BLOCK}.mlp.down_proj.weight": "hidden mlp",
        "model.norm.weight": "hidden",
        "lm_head.weight": "vocabulary hidden",
    },
    sizes={
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "mlp": "intermediate_size",
        "heads": "num_attention_heads",
        "kv_groups": "num_key_value_heads",
        "head_dim": "head_dim",
        "vocabulary": "vocab_size",
    },
    blocks="model.layers",
    norms=("input_layernorm", "post_attention_layernorm", "model.norm"),
    norm_epsilon="rms_norm_eps",
    cuttable=("layers", "hidden", "mlp", "kv_groups", "group_heads"),
    gguf=LLAMA_GGUF,
    defaults={
        "kv_groups": lambda config: config.num_attention_heads,
        "head_dim": lambda config: config.hidden_size // config.num_attention_heads,
    },
)
