"""StableLM: LayerNorms with biases, RoPE on the first dimensions of each head.

llama.cpp's graph goes by the tensors that are there: without a second norm in a block, attention
and MLP share the first one.
"""

from __future__ import annotations

from typing import Any

from flyweight.anatomy.gguf.keys import rope_keys, size_keys
from flyweight.anatomy.gguf.llama import ATTENTION, EMBEDDINGS, MLP, PRE_NORMS, QKV, biases
from flyweight.anatomy.gguf.map import GgufMap
from flyweight.anatomy.gguf.rope import turning
from flyweight.errors import UnsupportedFamily

NORMS = PRE_NORMS | {"model.norm.weight": EMBEDDINGS["model.norm.weight"]}


def stablelm_keys(config: Any) -> dict[str, Any]:
    """StableLM's metadata; UnsupportedFamily for norms of each head, which cannot be cut either."""
    if config.qk_layernorm:
        raise UnsupportedFamily(
            "qk_layernorm is true: norms of each head's queries and keys (StableLM 2 12B) are not "
            "written to GGUF; use a model without them"
        )
    return {
        **size_keys(config, epsilon="layer_norm_eps"),
        **rope_keys(config.rope_parameters),
        "rope.dimension_count": turning(config),
        "use_parallel_residual": config.use_parallel_residual,
    }


STABLELM = GgufMap(
    architecture="stablelm",
    tensors=EMBEDDINGS | NORMS | biases(NORMS) | ATTENTION | biases(QKV) | MLP,
    metadata=stablelm_keys,
    own_head=True,
)
