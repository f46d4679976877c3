"""A quantised file's weights in torch: what the file will compute, before it is written."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from gguf.quants import dequantize, quantize

from flyweight.anatomy.gguf import GgufMap
from flyweight.runtime.gguf import kind_of


@torch.no_grad()
def rounded(model: Any, bits: int, gguf_map: GgufMap) -> Any:
    """A copy of `model` (fp32) whose weights are those of its GGUF file at `bits`.

    The file holds some matrices with their rows in another order; blocks lie within rows, so the
    order does not change what a weight is rounded to.
    """
    student = copy.deepcopy(model)
    for parameter, weight in student.named_parameters():
        name = gguf_map.name(parameter, model.config)
        if name is None:
            continue
        kind = kind_of(name, weight.shape, bits, gguf_map)
        stored = quantize(np.ascontiguousarray(weight.float().numpy()), kind)
        weight.copy_(torch.from_numpy(dequantize(stored, kind)))
    return student
