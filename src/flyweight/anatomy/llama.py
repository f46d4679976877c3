"""Llama, Mistral, SmolLM: RMSNorm before each half, grouped-query attention, gated MLP."""

from __future__ import annotations

from typing import Any

from flyweight.anatomy.family import Family, Norm
from flyweight.anatomy.gguf import LLAMA as LLAMA_GGUF

BLOCK = "model.layers.{layer}"
CUTTABLE = (
    "layers",
    "hidden",
    "mlp",
    "kv_groups",
    "group_heads",
    "head_dim",
    "value_dim",
    "vocabulary",
)
SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "mlp": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_groups": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocabulary": "vocab_size",
}
DEFAULTS = {
    "kv_groups": lambda config: config.num_attention_heads,
    "head_dim": lambda config: config.hidden_size // config.num_attention_heads,
}
EMBEDDINGS = {
    "model.embed_tokens.weight": "vocabulary hidden",
    "model.norm.weight": "hidden",
    "lm_head.weight": "vocabulary hidden",
}
ATTENTION = {
    f"{BLOCK}.self_attn.q_proj.weight": "(kv_groups group_heads head_dim) hidden",
    f"{BLOCK}.self_attn.k_proj.weight": "(kv_groups head_dim) hidden",
    f"{BLOCK}.self_attn.v_proj.weight": "(kv_groups value_dim) hidden",
    f"{BLOCK}.self_attn.o_proj.weight": "hidden (kv_groups group_heads value_dim)",
}
QKV_BIAS = {
    f"{BLOCK}.self_attn.q_proj.bias": "(kv_groups group_heads head_dim)",
    f"{BLOCK}.self_attn.k_proj.bias": "(kv_groups head_dim)",
    f"{BLOCK}.self_attn.v_proj.bias": "(kv_groups value_dim)",
}
ATTENTION_BIAS = QKV_BIAS | {f"{BLOCK}.self_attn.o_proj.bias": "hidden"}
MLP = {
    f"{BLOCK}.mlp.gate_proj.weight": "mlp hidden",
    f"{BLOCK}.mlp.up_proj.weight": "mlp hidden",
    f"{BLOCK}.mlp.down_proj.weight": "hidden mlp",
}
MLP_BIAS = {
    f"{BLOCK}.mlp.gate_proj.bias": "mlp",
    f"{BLOCK}.mlp.up_proj.bias": "mlp",
    f"{BLOCK}.mlp.down_proj.bias": "hidden",
}
PRE_NORMS = {
    f"{BLOCK}.input_layernorm.weight": "hidden",
    f"{BLOCK}.post_attention_layernorm.weight": "hidden",
}


def norms_of(parameters: dict[str, str], norm: Norm) -> dict[str, Norm]:
    """The modules of these norm weights, all of one kind."""
    return {name.removesuffix(".weight"): norm for name in parameters if name.endswith(".weight")}


def told_by(parameters: dict[str, str], flag: str) -> dict[str, Any]:
    """Parameters that a model has if its config says so in `flag`."""
    return dict.fromkeys(parameters, lambda config, layer: getattr(config, flag, False))


LLAMA = Family(
    name="llama",
    model_types=("llama", "mistral"),
    parameters=EMBEDDINGS | PRE_NORMS | ATTENTION | ATTENTION_BIAS | MLP | MLP_BIAS,
    present=told_by(ATTENTION_BIAS, "attention_bias") | told_by(MLP_BIAS, "mlp_bias"),
    sizes=SIZES,
    defaults=DEFAULTS,
    blocks="model.layers",
    norms=norms_of(PRE_NORMS, Norm()) | {"model.norm": Norm()},
    norm_epsilon="rms_norm_eps",
    cuttable=CUTTABLE,
    gguf=LLAMA_GGUF,
)
