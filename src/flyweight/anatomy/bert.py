"""BERT with a classification head: an encoder, its norms after each half of a block.

Its heads' width is hidden over heads, with no field of its own: hidden is always heads x head_dim.
"""

from __future__ import annotations

from flyweight.anatomy.family import Family, Norm

BLOCK = "bert.encoder.layer.{layer}"
QUERIES = "(kv_groups group_heads head_dim)"
VALUES = "(kv_groups group_heads value_dim)"


def linear(name: str, rows: str, columns: str) -> dict[str, str]:
    """A projection with its bias."""
    return {f"{name}.weight": f"{rows} {columns}", f"{name}.bias": rows}


def norm(name: str) -> dict[str, str]:
    """A LayerNorm with its bias."""
    return {f"{name}.weight": "hidden", f"{name}.bias": "hidden"}


BERT = Family(
    name="bert",
    model_types=("bert",),
    parameters={
        "bert.embeddings.word_embeddings.weight": "vocabulary hidden",
        "bert.embeddings.position_embeddings.weight": "positions hidden",
        "bert.embeddings.token_type_embeddings.weight": "token_types hidden",
        **norm("bert.embeddings.LayerNorm"),
        **linear(f"{BLOCK}.attention.self.query", QUERIES, "hidden"),
        **linear(f"{BLOCK}.attention.self.key", "(kv_groups head_dim)", "hidden"),
        **linear(f"{BLOCK}.attention.self.value", "(kv_groups value_dim)", "hidden"),
        **linear(f"{BLOCK}.attention.output.dense", "hidden", VALUES),
        **norm(f"{BLOCK}.attention.output.LayerNorm"),
        **linear(f"{BLOCK}.intermediate.dense", "mlp", "hidden"),
        **linear(f"{BLOCK}.output.dense", "hidden", "mlp"),
        **norm(f"{BLOCK}.output.LayerNorm"),
        **linear("bert.pooler.dense", "hidden", "hidden"),
        **linear("classifier", "labels", "hidden"),
    },
    sizes={
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "mlp": "intermediate_size",
        "heads": "num_attention_heads",
        "kv_groups": "num_attention_heads",
        "head_dim": "head_dim",
        "vocabulary": "vocab_size",
    },
    defaults={"head_dim": lambda config: config.hidden_size // config.num_attention_heads},
    fixed={
        "positions": "max_position_embeddings",
        "token_types": "type_vocab_size",
        "labels": "num_labels",
    },
    blocks="bert.encoder.layer",
    norms=dict.fromkeys(
        (
            "bert.embeddings.LayerNorm",
            f"{BLOCK}.attention.output.LayerNorm",
            f"{BLOCK}.output.LayerNorm",
        ),
        Norm(centred=True),
    ),
    norm_epsilon="layer_norm_eps",
    cuttable=("layers", "hidden", "mlp", "kv_groups", "head_dim", "value_dim", "vocabulary"),
    embedding="bert.embeddings.word_embeddings.weight",
    head=None,
    rotary=lambda config: 0,
    hidden_is_heads=True,
    model="AutoModelForSequenceClassification",
    causal=False,
)
