"""StableLM: LayerNorms, RoPE on a part of each head; hidden is heads x head_dim.

Models with `qk_layernorm` (StableLM 2 12B) have a norm for each head, which is not declared: they
are refused.
"""

from __future__ import annotations

from dataclasses import replace

from flyweight.anatomy.family import Norm
from flyweight.anatomy.gguf import STABLELM as STABLELM_GGUF
from flyweight.anatomy.llama import (
    ATTENTION,
    BLOCK,
    EMBEDDINGS,
    LLAMA,
    MLP,
    PRE_NORMS,
    QKV_BIAS,
    norms_of,
    told_by,
)
from flyweight.anatomy.phi3 import turning

NORMS = norms_of(PRE_NORMS, Norm(centred=True)) | {"model.norm": Norm(centred=True)}
SECOND_NORM = f"{BLOCK}.post_attention_layernorm"

STABLELM = replace(
    LLAMA,
    name="stablelm",
    model_types=("stablelm",),
    parameters=EMBEDDINGS
    | PRE_NORMS
    | {f"{name}.bias": "hidden" for name in NORMS}
    | ATTENTION
    | QKV_BIAS
    | MLP,
    present=told_by(QKV_BIAS, "use_qkv_bias")
    | dict.fromkeys(  # with a parallel residual, attention and MLP share the first norm
        (f"{SECOND_NORM}.weight", f"{SECOND_NORM}.bias"),
        lambda config, layer: not config.use_parallel_residual,
    ),
    norms=NORMS,
    norm_epsilon="layer_norm_eps",
    rotary=turning,
    hidden_is_heads=True,
    gguf=STABLELM_GGUF,
)
