"""Products with weights in 8 bits, where the processor has instructions for them."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.ao.nn.quantized.dynamic import Linear
from torch.ao.quantization.qconfig import per_channel_dynamic_qconfig

from flyweight.vision.decoder import Product


def eight_bits(weight: Tensor) -> Product:
    """A product with a weight in int8, a scale for each row; what goes in is scaled as it comes."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.qconfig = per_channel_dynamic_qconfig  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to move it to another package
        return Linear.from_float(layer)


__all__ = ["eight_bits"]
