"""OLMo 2: norms after attention and MLP, and over all queries and all keys."""

from __future__ import annotations

from typing import Any

from flyweight.anatomy.gguf.keys import head_dim, rope_keys, size_keys
from flyweight.anatomy.gguf.llama import ATTENTION, BLOCK, EMBEDDINGS, MLP
from flyweight.anatomy.gguf.map import GgufMap
from flyweight.anatomy.gguf.qwen import HEAD_NORMS
from flyweight.errors import UnsupportedFamily

POST_NORMS = {
    f"{BLOCK}.post_attention_layernorm.weight": "blk.{i}.post_attention_norm.weight",
    f"{BLOCK}.post_feedforward_layernorm.weight": "blk.{i}.post_ffw_norm.weight",
}


def olmo2_keys(config: Any) -> dict[str, Any]:
    """OLMo 2's metadata; UnsupportedFamily for widths that its graph cannot have."""
    heads, width = config.num_attention_heads, head_dim(config)
    if heads * width != config.hidden_size:
        raise UnsupportedFamily(
            f"{heads} heads of {width} are not the hidden size {config.hidden_size}, and "
            "llama.cpp's graph of olmo2 knows no others: cut to sizes where they are, or export "
            "without GGUF"
        )
    return size_keys(config) | rope_keys(config.rope_parameters)


OLMO2 = GgufMap(
    architecture="olmo2",
    tensors=EMBEDDINGS | ATTENTION | HEAD_NORMS | POST_NORMS | MLP,
    metadata=olmo2_keys,
    own_head=True,
)
