"""How a family is written in GGUF: its tensor names, its metadata, and the rows that turn.

llama.cpp's `llama` graph rotates neighbouring pairs of a head's dimensions, Hugging Face's rotates
dimension i with i + d/2; so the rows of the query and key projections are interleaved on the way.
Names and keys: the GGUF specification of the ggml project and the `gguf` package's constants.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flyweight.errors import UnsupportedFamily

_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class GgufMap:
    """One family's way into GGUF; `{i}` in a name stands for the layer."""

    architecture: str
    tensors: Mapping[str, str]  # parameter -> GGUF tensor, both with {i}
    metadata: Callable[[Any], dict[str, Any]]  # HF config -> keys without the architecture's prefix
    interleaved: Mapping[str, str] = field(default_factory=dict)  # parameter -> config's head count
    computed: Callable[[Any], dict[str, Tensor]] = lambda config: {}  # tensors that no file holds
    at_high_precision: tuple[str, ...] = ("token_embd.weight", "output.weight")
    ignored: tuple[str, ...] = (".rotary_emb.inv_freq",)  # endings of buffers, not weights

    def name(self, parameter: str, config: Any) -> str | None:
        """The GGUF name of a parameter; None for one that is left out. Raises UnsupportedFamily."""
        if parameter.endswith(self.ignored):
            return None
        template, layer = _template(parameter)
        if template not in self.tensors:
            raise UnsupportedFamily(
                f"{parameter}: the GGUF architecture {self.architecture!r} has no place for this "
                "tensor; remove it from the checkpoint or export without GGUF"
            )
        name = self.tensors[template].format(i=layer)
        return None if name == "output.weight" and config.tie_word_embeddings else name

    def transform(self, parameter: str, weight: Tensor, config: Any) -> Tensor:
        """The weight as llama.cpp wants it; shapes stay as they are."""
        heads = self.interleaved.get(_template(parameter)[0])
        return weight if heads is None else interleave(weight, getattr(config, heads))


def _template(parameter: str) -> tuple[str, str]:
    layer = _LAYER.search(parameter)
    if layer is None:
        return parameter, ""
    return parameter[: layer.start()] + ".{i}." + parameter[layer.end() :], layer.group(1)


def interleave(weight: Tensor, heads: int) -> Tensor:
    """Rows (or a bias's entries) of each head from halves to neighbouring pairs; same shape."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])  # [H, 2, D/2, ...]
    return halves.transpose(1, 2).reshape(weight.shape)


def head_dim(config: Any) -> int:
    """The width of one attention head, which need not be hidden size over heads."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _llama_metadata(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    keys: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim(config),
        "attention.value_length": head_dim(config),
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": head_dim(config),
        "rope.freq_base": float(rope["rope_theta"]),
    }
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    elif kind not in ("default", "llama3"):
        raise UnsupportedFamily(
            f"RoPE scaling {kind!r} cannot be written to GGUF; default, linear and llama3 can"
        )
    return keys


def _llama3_frequencies(config: Any) -> dict[str, Tensor]:
    """The divisors of RoPE's frequencies [head_dim / 2] for Llama 3's long contexts."""
    rope = config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return {}
    width = head_dim(config)
    powers = torch.arange(0, width, 2, dtype=torch.float64) / width
    wavelength = 2 * math.pi * float(rope["rope_theta"]) ** powers
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    context, factor = float(rope["original_max_position_embeddings"]), float(rope["factor"])
    # short waves stay, long ones are stretched by the factor, those between are mixed
    share = ((context / wavelength - low) / (high - low)).clamp(0, 1)
    return {"rope_freqs.weight": (1 / ((1 - share) / factor + share)).float()}


def _with_bias(name: str, tensor: str) -> dict[str, str]:
    return {f"{name}.weight": f"{tensor}.weight", f"{name}.bias": f"{tensor}.bias"}


_BLOCK = "model.layers.{i}"

LLAMA = GgufMap(
    architecture="llama",
    tensors={
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
        f"{_BLOCK}.input_layernorm.weight": "blk.{i}.attn_norm.weight",
        f"{_BLOCK}.post_attention_layernorm.weight": "blk.{i}.ffn_norm.weight",
        **_with_bias(f"{_BLOCK}.self_attn.q_proj", "blk.{i}.attn_q"),
        **_with_bias(f"{_BLOCK}.self_attn.k_proj", "blk.{i}.attn_k"),
        **_with_bias(f"{_BLOCK}.self_attn.v_proj", "blk.{i}.attn_v"),
        **_with_bias(f"{_BLOCK}.self_attn.o_proj", "blk.{i}.attn_output"),
        **_with_bias(f"{_BLOCK}.mlp.gate_proj", "blk.{i}.ffn_gate"),
        **_with_bias(f"{_BLOCK}.mlp.up_proj", "blk.{i}.ffn_up"),
        **_with_bias(f"{_BLOCK}.mlp.down_proj", "blk.{i}.ffn_down"),
    },
    metadata=_llama_metadata,
    interleaved={
        f"{_BLOCK}.self_attn.q_proj.weight": "num_attention_heads",
        f"{_BLOCK}.self_attn.q_proj.bias": "num_attention_heads",
        f"{_BLOCK}.self_attn.k_proj.weight": "num_key_value_heads",
        f"{_BLOCK}.self_attn.k_proj.bias": "num_key_value_heads",
    },
    computed=_llama3_frequencies,
)

__all__ = ["LLAMA", "GgufMap", "head_dim", "interleave"]
