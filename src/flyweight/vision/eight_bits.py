"""Products with weights in 8 bits, where the processor has instructions for them."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.ao.nn.quantized.dynamic import Linear

from flyweight.vision.decoder import Product
from flyweight.vision.int8 import scale_of


def eight_bits(weight: Tensor) -> Product:
    """A product with a weight in int8, a scale for each row; what goes in is scaled as it comes.

    Weights that a file of 8 bits holds stay what they are there.
    """
    scale = scale_of(weight).flatten()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to move it to another package
        layer = Linear(weight.shape[1], weight.shape[0], bias_=False)
    zeros = torch.zeros(len(scale), dtype=torch.long)
    packed = torch.quantize_per_channel(weight.float(), scale.double(), zeros, 0, torch.qint8)
    layer.set_weight_bias(packed, None)
    return layer


__all__ = ["eight_bits"]
