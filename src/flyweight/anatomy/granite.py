"""Granite: Llama's blocks with a multiplier on embeddings, attention, residuals and logits.

The multipliers are numbers of the config and depend on no size, so a cut leaves them alone.
"""

from __future__ import annotations

from dataclasses import replace

from flyweight.anatomy.gguf import GRANITE as GRANITE_GGUF
from flyweight.anatomy.llama import LLAMA

GRANITE = replace(
    LLAMA,
    name="granite",
    model_types=("granite",),
    scales_attention=False,
    logits=lambda config, logits: logits / config.logits_scaling,
    gguf=GRANITE_GGUF,
)
