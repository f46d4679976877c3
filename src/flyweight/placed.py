"""Where networks compute that are read and not trained: on the GPU, where there is one with room.

(A training moves its networks itself.) Weights go there as copies and are dropped afterwards, so
that a teacher that stays in its files is not carried back into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.mapped import Mapped

ROOM = 0.6  # of a GPU's free memory that weights may take: activations and logits have the rest


def accelerator() -> torch.device:
    """The GPU, or else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def room() -> float:
    """Bytes of weights that the accelerator still takes."""
    return ROOM * torch.cuda.mem_get_info()[0]


@contextmanager
def placed(*models: Any) -> Iterator[None]:
    """While inside, models compute on the accelerator; all of them or, without room, none.

    Their own weights are untouched and in their place again afterwards: what is written to the
    copies is lost. A model that is there already stays.
    """
    device = accelerator()
    away = [model for model in models if device.type not in (model.device.type, "cpu")]
    with ExitStack() as stack:
        if away and sum(map(_bytes, away)) <= room():
            for model in away:
                stack.enter_context(moved(model, device))
        yield


@contextmanager
def moved(model: nn.Module, device: torch.device) -> Iterator[None]:
    """While inside, a model is on that device, as a copy, with or without room; see `placed`."""
    modules = list(model.modules())
    before = [(dict(module._parameters), dict(module._buffers)) for module in modules]
    there: dict[int, Tensor] = {}  # by the identity of the own one: what is shared stays so

    def copied(own: Tensor) -> Any:
        if id(own) not in there:
            copy = own.detach().to(device)
            there[id(own)] = nn.Parameter(copy, False) if isinstance(own, nn.Parameter) else copy
        return there[id(own)]

    try:
        for module, kept in zip(modules, before, strict=True):
            stores: list[Any] = [module._parameters, module._buffers]
            for store, own in zip(stores, kept, strict=True):
                store |= {name: copied(each) for name, each in own.items() if each is not None}
        yield
    finally:
        for module, (parameters, buffers) in zip(modules, before, strict=True):
            module._parameters.update(parameters)
            module._buffers.update(buffers)


def _bytes(model: nn.Module) -> int:
    """What its weights take, as they are stored."""
    return sum(
        weight.stored.nbytes if isinstance(weight, Mapped) else weight.nbytes
        for weight in model.parameters()
    )


__all__ = ["accelerator", "moved", "placed"]
