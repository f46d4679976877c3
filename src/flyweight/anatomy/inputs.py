"""What feeds each matrix on given texts: the second moments of its columns.

A matrix that is stored coarsely may err more in a column that meets little, and an error in one
column can be made up for in others that say much the same. Moments are kept within windows of
columns: they grow with a model's width, not with its square.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.placed import placed

WINDOW = 512  # columns whose products are kept; whole blocks of every GGUF type


@dataclass
class Inputs:
    """Moments by parameter: the means, over so many tokens, of products of two inputs.

    Of a weight [R, C] one float32 [W, W] for each window of WINDOW columns, the last one narrower.
    What is looked up by its rows (an embedding) and experts that share a tensor have none.
    """

    tokens: int = 0
    moments: dict[str, list[Tensor]] = field(default_factory=dict)


@torch.inference_mode()
def measure_inputs(model: Any, texts: Iterable[Sequence[int]]) -> Inputs:
    """The moments of every linear layer's inputs on `texts` (token ids), read by hooks.

    One text at a time, so that nothing is padded. Layers that one tensor feeds share their moments;
    an output matrix is fed by the last hidden states, and named apart where it is the embedding.
    """
    sums = _Sums()
    tokens = 0
    with placed(model), sums.reading(model):
        for ids in texts:
            if len(ids):
                model(input_ids=torch.tensor([list(ids)]).to(model.device), use_cache=False)
                tokens += len(ids)
    means = {owner: [each.cpu() / tokens for each in found] for owner, found in sums.found.items()}
    return Inputs(tokens, {f"{name}.weight": means[own] for name, own in sums.owners.items()})


class _Sums:
    """Sums of products by layer; of layers fed by one tensor the first owns them."""

    def __init__(self) -> None:
        self.found: dict[str, list[Tensor]] = {}
        self.owners: dict[str, str] = {}
        self._last: tuple[str, Tensor] | None = None

    @contextmanager
    def reading(self, model: Any) -> Iterator[None]:
        """The model with a hook on every linear layer."""
        hooks = [
            module.register_forward_pre_hook(self._hook(name))
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
        ]
        try:
            yield
        finally:
            self._last = None
            for hook in hooks:
                hook.remove()

    def _hook(self, name: str) -> Any:
        def on_forward(module: Any, inputs: tuple[Tensor, ...]) -> None:
            if name not in self.owners:
                fed = self._last is not None and self._last[1] is inputs[0]
                self.owners[name] = self._last[0] if fed and self._last else name
            if self.owners[name] == name:
                self._add(name, inputs[0])
                self._last = (name, inputs[0])

        return on_forward

    def _add(self, name: str, x: Tensor) -> None:
        """Add inputs [..., C]."""
        rows = x.detach().float().reshape(-1, x.shape[-1])
        products = [part.T @ part for part in rows.split(WINDOW, 1)]
        for total, each in zip(self.found.setdefault(name, []), products, strict=False):
            total += each
        self.found[name] = self.found[name] or products


__all__ = ["WINDOW", "Inputs", "measure_inputs"]
