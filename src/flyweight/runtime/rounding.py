"""A quantised file's weights in torch: what the file computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from gguf.quants import dequantize

from flyweight.anatomy.gguf import GgufMap
from flyweight.anatomy.gguf.map import OUTPUT


@torch.no_grad()
def rounded(model: Any, file: Path, gguf_map: GgufMap) -> Any:
    """`model` (fp32), from now on with the weights that its GGUF file holds."""
    tensors = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    for parameter, weight in model.named_parameters():
        for part in gguf_map.parts(parameter, model.config):
            if part.tensor == OUTPUT and model.config.tie_word_embeddings:
                continue  # a copy of the input embedding
            stored = tensors[part.tensor]
            read = torch.from_numpy(dequantize(stored.data, stored.tensor_type).copy())
            part.take(weight).copy_(gguf_map.restore(part, read, model.config))  # into a view
    return model


__all__ = ["rounded"]
