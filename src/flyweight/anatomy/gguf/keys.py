"""The metadata that every architecture has: sizes, context and RoPE."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flyweight.errors import UnsupportedFamily

SCALED_BY_KEYS = ("default", "linear")  # what every graph of llama.cpp can do
SLIDING = "sliding_attention"
EPSILONS = {  # field of the config -> key
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_eps": "attention.layer_norm_epsilon",
}


def head_dim(config: Any) -> int:
    """The width of one attention head, which need not be hidden size over heads."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def size_keys(
    config: Any, activation: str = "silu", epsilon: str = "rms_norm_eps"
) -> dict[str, Any]:
    """The sizes of a network whose graph has this activation; UnsupportedFamily for another.

    `epsilon` is what the config calls that of its norms.
    """
    found = getattr(config, "hidden_activation", None) or config.hidden_act
    if found != activation:
        raise UnsupportedFamily(
            f"the activation {found!r} cannot be written to GGUF: llama.cpp's graph of "
            f"{config.model_type} has {activation}"
        )
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim(config),
        "attention.value_length": head_dim(config),
        EPSILONS[epsilon]: float(getattr(config, epsilon)),
        "rope.dimension_count": head_dim(config),
    }


def rope_keys(rope: Any, kinds: Collection[str] = SCALED_BY_KEYS) -> dict[str, Any]:
    """RoPE's base and scaling; UnsupportedFamily for a scaling that is not one of `kinds`."""
    kind = rope.get("rope_type", "default")
    if kind not in kinds:
        raise UnsupportedFamily(
            f"RoPE scaling {kind!r} cannot be written to GGUF; {', '.join(kinds)} can"
        )
    keys: dict[str, Any] = {"rope.freq_base": float(rope["rope_theta"])}
    if kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    return keys


def full_attention_keys(config: Any) -> dict[str, Any]:
    """The context up to which a graph without sliding windows computes what the model does."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    context = config.max_position_embeddings
    if window and (kinds is None or SLIDING in kinds):
        context = min(context, window)
    return {"context_length": context}


def window_keys(config: Any) -> dict[str, Any]:
    """The window, and which layers it is for; nothing where it is for none.

    A cut may leave any layers, so each is named; an older llama.cpp takes no notice of that.
    """
    sliding = [kind == SLIDING for kind in config.layer_types]
    if not any(sliding):
        return {}
    return {
        "attention.sliding_window": config.sliding_window,
        "attention.sliding_window_pattern": sliding,
    }


__all__ = [
    "SCALED_BY_KEYS",
    "full_attention_keys",
    "head_dim",
    "rope_keys",
    "size_keys",
    "window_keys",
]
