"""A Mllama's weights in a file of 8 bits: half of what 16 take, read into fp32 again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flyweight.errors import TeacherError

SCALE = ".scale"  # what the name of a weight's scales ends in
MOST = 127


def write_int8(model: Any, file: Path) -> None:
    """Write a model's weights: matrices in int8 with a scale for each row, the rest in bf16."""
    tensors: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        weight = weight.detach().float().cpu()
        if weight.dim() < 2:
            tensors[name] = weight.bfloat16()
            continue
        scale = scale_of(weight)
        tensors[name] = (weight / scale).round().to(torch.int8)
        tensors[name + SCALE] = scale.flatten()
    save_file(tensors, file, metadata={"format": "pt"})


def scale_of(weight: Tensor) -> Tensor:
    """What each row of a matrix [R, ...] is a multiple of in int8 [R, 1, ...]."""
    most = weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True)
    return most.clamp(min=1e-12) / MOST


def read_int8(model: Any, file: Path) -> None:
    """Put the weights of such a file into a model; TeacherError for one that does not fit."""
    try:
        with safe_open(file, framework="pt") as tensors, torch.no_grad():
            for name, weight in model.named_parameters():
                found = tensors.get_tensor(name).float()
                if found.dim() > 1:
                    scale = tensors.get_tensor(name + SCALE)
                    found = found * scale.view(-1, *[1] * (found.dim() - 1))
                weight.copy_(found)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise TeacherError(f"{file} does not fit its config ({error}). Make it again.") from error


__all__ = ["read_int8", "scale_of", "write_int8"]
