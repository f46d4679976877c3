"""A model's head apart from the model: what makes logits of its final hidden states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.anatomy import family_of
from flyweight.errors import UnsupportedFamily
from flyweight.mapped import in_type, plain


@dataclass(frozen=True)
class Head:
    """What makes logits of hidden states: `weight` [V, D], `bias` [V], and what follows them.

    `scaling` is the family's soft cap or divisor, logits [n, V] -> logits; None where it has none.
    """

    weight: Tensor
    bias: Tensor | None = None
    scaling: Callable[[Tensor], Tensor] | None = None

    def logits(self, hidden: Tensor, out: Tensor) -> Tensor:
        """Logits [n, V] before the scaling, written to `out`, in whose type they are computed."""
        weight = in_type(self.weight, out.dtype).t()
        if self.bias is None:
            return torch.mm(hidden, weight, out=out)
        return torch.addmm(self.bias.detach().to(out.dtype), hidden, weight, out=out)

    def to(self, dtype: torch.dtype) -> Head:
        """The same with weights of this type, no part of any graph and none of them mapped."""
        bias = None if self.bias is None else self.bias.detach().to(dtype)
        return Head(plain(in_type(self.weight, dtype)), bias, self.scaling)


def head_of(model: Any) -> Head:
    """The head of a transformers model with its family's scaling.

    UnsupportedFamily where it is not linear.
    """
    module = model.get_output_embeddings()
    if not isinstance(module, nn.Linear):
        raise UnsupportedFamily(
            f"{type(model).__name__}: its head is {type(module).__name__}, not a linear layer, so "
            "that its losses cannot be computed in chunks. Merge adapters into it first."
        )
    config, family = model.config, family_of(model.config)
    probe = torch.zeros(1)
    unscaled = family.logits(config, probe) is probe
    scaling = None if unscaled else lambda logits: family.logits(config, logits)
    return Head(module.weight, module.bias, scaling)


__all__ = ["Head", "head_of"]
