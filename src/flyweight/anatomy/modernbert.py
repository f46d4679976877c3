"""ModernBERT with a classification head: norms before each half, RoPE, local and global attention.

The first block has no norm before its attention, so it always stays. Hidden is heads x head_dim.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flyweight.anatomy.bert import BERT
from flyweight.anatomy.family import Norm

BLOCK = "model.layers.{layer}"
ATTENTION_NORM = f"{BLOCK}.attn_norm"  # which the first block lacks
WEIGHTS = {
    "model.embeddings.tok_embeddings.weight": "vocabulary hidden",
    "model.embeddings.norm.weight": "hidden",
    f"{ATTENTION_NORM}.weight": "hidden",
    f"{BLOCK}.attn.Wqkv.weight": (
        "(kv_groups group_heads head_dim + kv_groups head_dim + kv_groups value_dim) hidden"
    ),
    f"{BLOCK}.attn.Wo.weight": "hidden (kv_groups group_heads value_dim)",
    f"{BLOCK}.mlp_norm.weight": "hidden",
    f"{BLOCK}.mlp.Wi.weight": "(mlp + mlp) hidden",
    f"{BLOCK}.mlp.Wo.weight": "hidden mlp",
    "model.final_norm.weight": "hidden",
    "head.dense.weight": "hidden hidden",
    "head.norm.weight": "hidden",
    "classifier.weight": "labels hidden",
}
NORMS = ("model.embeddings.norm", ATTENTION_NORM, f"{BLOCK}.mlp_norm", "model.final_norm")


def biases() -> tuple[dict[str, str], dict[str, Any]]:
    """The biases that a config may ask for: how they are spelled, and who says so."""
    spelled, told = {}, {}
    for name, spelling in WEIGHTS.items():
        module = name.removesuffix(".weight")
        if "tok_embeddings" in module or module == "classifier":
            continue
        rows = spelling[: spelling.index(")") + 1] if spelling[0] == "(" else spelling.split()[0]
        if module.endswith("norm"):
            flag = "norm_bias"
        elif module == "head.dense":
            flag = "classifier_bias"
        else:
            flag = "attention_bias" if ".attn." in module else "mlp_bias"
        spelled[f"{module}.bias"] = rows
        told[f"{module}.bias"] = lambda config, layer, flag=flag: getattr(config, flag)
    first = told[f"{ATTENTION_NORM}.bias"]
    told[f"{ATTENTION_NORM}.bias"] = lambda config, layer: layer > 0 and first(config, layer)
    return spelled, told


BIASES, TOLD = biases()

MODERNBERT = replace(
    BERT,
    name="modernbert",
    model_types=("modernbert",),
    parameters=WEIGHTS | BIASES | {"classifier.bias": "labels"},
    present=TOLD | {f"{ATTENTION_NORM}.weight": lambda config, layer: layer > 0},
    fixed={"labels": "num_labels"},
    blocks="model.layers",
    norms=dict.fromkeys((*NORMS, "head.norm"), Norm(centred=True)),
    norm_epsilon="norm_eps",
    embedding="model.embeddings.tok_embeddings.weight",
    final_norm="model.final_norm",
    rotary=None,
    pinned=(0,),
)
