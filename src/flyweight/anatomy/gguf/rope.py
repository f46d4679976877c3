"""RoPE as llama.cpp's `llama` graph takes it: base ^ (-2i/d), divided by a tensor of its own.

With these divisors it turns at any rate, and where they are huge not at all: so Llama 3's, YaRN's
and LongRoPE's rates go into it, and heads of which only a part turns. What some of them multiply
sines and cosines with goes into the queries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flyweight.anatomy.gguf.keys import SCALED_BY_KEYS, head_dim

SCALINGS = (*SCALED_BY_KEYS, "llama3", "yarn", "longrope")
QUERIES = ("blk.{i}.attn_q.weight", "blk.{i}.attn_q.bias")
_NEVER = 1e30  # the divisor of a rate that is 0


def turning(config: Any) -> int:
    """The first dimensions of a head, which RoPE turns."""
    return int(head_dim(config) * config.rope_parameters.get("partial_rotary_factor", 1.0))


def divisors(config: Any) -> dict[str, Tensor]:
    """The divisors of RoPE's rates [head_dim / 2]; nothing where all are 1."""
    width, turned = head_dim(config), turning(config)
    rates, _ = _rates(config)
    if rates is None and turned == width:
        return {}
    if rates is None:
        rates = _plain(config, turned)
    found = torch.full((width // 2,), _NEVER)
    found[: turned // 2] = _plain(config, width)[: turned // 2] / rates.double()
    return {"rope_freqs.weight": found}


def query_factors(config: Any) -> dict[str, Tensor | float]:
    """By what queries are multiplied: [heads * head_dim], 1 where nothing turns."""
    _, scale = _rates(config)
    if scale == 1:
        return {}
    head = torch.ones(head_dim(config))
    head[: turning(config)] = scale**2  # keys' share is here too
    return dict.fromkeys(QUERIES, head.repeat(config.num_attention_heads))


def context_keys(config: Any, context: int) -> dict[str, Any]:
    """The context up to which these rates hold: beyond it LongRoPE has others."""
    rope = config.rope_parameters
    if rope.get("rope_type") == "longrope":
        context = min(context, rope["original_max_position_embeddings"])
    return {"context_length": context}


def _plain(config: Any, width: int) -> Tensor:
    """The rates [width / 2] of RoPE as it was published."""
    exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
    return float(config.rope_parameters["rope_theta"]) ** -exponents


def _rates(config: Any) -> tuple[Tensor | None, float]:
    """transformers' rates [turning / 2] and factor; None where keys say all that there is to it."""
    kind = config.rope_parameters.get("rope_type", "default")
    if kind in SCALED_BY_KEYS:
        return None, 1.0
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    return ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))


__all__ = ["SCALINGS", "context_keys", "divisors", "query_factors", "turning"]
