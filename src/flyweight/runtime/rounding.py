"""A quantised file's weights in torch: what the file will compute, before it is written."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from gguf.quants import dequantize, quantize

from flyweight.anatomy.gguf import GgufMap
from flyweight.anatomy.gguf.map import OUTPUT, by_row
from flyweight.runtime.gguf import kind_of


@torch.no_grad()
def rounded(model: Any, bits: int, gguf_map: GgufMap) -> Any:
    """A copy of `model` (fp32) whose weights are those of its GGUF file at `bits`.

    The file holds some matrices with their rows in another order; blocks lie within rows, so the
    order does not change what a weight is rounded to.
    """
    student = copy.deepcopy(model)
    for parameter, weight in student.named_parameters():
        for part in gguf_map.parts(parameter, model.config):
            if part.tensor == OUTPUT and model.config.tie_word_embeddings:
                continue  # a copy of the input embedding
            rows = part.take(weight)  # a view
            offset, factor = gguf_map.change(part.template, model.config)
            factor = by_row(factor, rows)
            kind = kind_of(part.tensor, rows.shape, bits, gguf_map)
            written = ((rows.float() + offset) * factor).numpy()
            stored = quantize(np.ascontiguousarray(written), kind)
            rows.copy_(torch.from_numpy(dequantize(stored, kind)) / factor - offset)
    return student
