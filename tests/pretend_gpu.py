"""A GPU where there is none: tensors on it compute on the CPU, and are refused beside its own.

What code does with a GPU can so be run anywhere, to the bit; what is computed with tensors on two
devices raises as it would there. Numbers on the CPU are taken as they are there: single ones, and
those that index.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from flyweight import placed
from flyweight.mapped import Mapped

ATEN = torch.ops.aten
NAME = "pretend"


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a device's module; there is none outside of `pretend_gpu`."""

    there = False

    def is_available(self) -> bool:
        return self.there

    def device_count(self) -> int:
        return int(self.there)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.zeros(0)  # it draws nothing

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        pass


# torch's own way to a device that is written in Python
backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
GPU = torch.device(NAME, 0)
BETWEEN = {ATEN._to_copy.default, ATEN.copy_.default, ATEN.index.Tensor, ATEN.index_put_.default}


class Far(Tensor):
    """A tensor that says it is on the GPU; its numbers are in `near`."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Self:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(),
            dtype=near.dtype, device=GPU, requires_grad=near.requires_grad,
        )  # fmt: skip

    def __init__(self, near: Tensor) -> None:
        super().__init__()
        self.near = near

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["near"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: Any) -> Far:
        return Far(parts["near"])

    @classmethod
    def __torch_dispatch__(
        cls, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return computed(op, args, kwargs or {})


def computed(op: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What an operation gives, on the device where it would be."""
    if torch.is_inference_mode_enabled():
        with _Factories():
            said = op.decompose(*args, **named)
        if said is not NotImplemented:
            return said
    given = [each for each in tree_leaves((args, named)) if isinstance(each, Tensor)]
    far = [each for each in given if isinstance(each, Far)]
    others = [each for each in given if not isinstance(each, Far) and each.dim()]
    if far and others and op not in BETWEEN:
        raise RuntimeError(f"{op}: tensors on two devices")
    device = named.get("device")
    there = bool(far) if device is None else torch.device(device).type == GPU.type
    if op is ATEN.copy_.default:
        there = isinstance(args[0], Far)
    named = {name: each for name, each in named.items() if name not in ("device", "pin_memory")}
    own = {id(each.near): each for each in far}
    with torch.inference_mode(False), torch.no_grad():
        said = op(*tree_map_only(Far, lambda each: each.near, args),
                  **tree_map_only(Far, lambda each: each.near, named))  # fmt: skip
        if not there:
            return said
        return tree_map_only(
            Tensor, lambda each: own[id(each)] if id(each) in own else Far(each), said
        )


class _Factories(TorchDispatchMode):
    """Makes on the GPU what is asked for there, and brings there what is on the CPU."""

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if Mapped in types:  # as without this mode, which what it does within comes to
            with _Factories():
                return Mapped.__torch_dispatch__(op, types, args, named)
        device = named.get("device")
        if device is not None and torch.device(device).type == GPU.type:
            return computed(op, args, named)
        return op(*args, **named)


@contextmanager
def pretend_gpu(monkeypatch: pytest.MonkeyPatch, room: float = 1e12) -> Iterator[None]:
    """While inside, there is a GPU that has room for so many bytes of weights."""
    with monkeypatch.context() as patch:
        patch.setattr(_Module, "there", True)
        patch.setattr(placed, "accelerator", lambda: GPU)
        patch.setattr(placed, "room", lambda: room)
        with _Factories():
            yield
