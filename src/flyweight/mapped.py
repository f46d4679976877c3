"""Weights of 16 bits that compute as the same numbers of 32, wherever they are used.

A big teacher is only read, and a few times: in 32 bits it would take twice the memory of its files
to say the very same. So its matrices stay as they are stored, on a CPU in the mapped files
themselves, which the system may drop and read again, and each is widened for the moment in which
it is multiplied. What is computed is the same to the bit. (The experts of a mixture, which
transformers joins when it loads them, are held in 16 bits, and a layer's widened all at once.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

ATEN = torch.ops.aten
ROOM = 2**26  # numbers that are widened in place kept for it: new memory costs more than the work
# Of these the numbers stay what they are stored as: views, and moving them elsewhere.
_VIEWS = {
    ATEN.alias.default, ATEN.detach.default, ATEN.expand.default, ATEN.permute.default,
    ATEN.select.int, ATEN.slice.Tensor, ATEN.split.Tensor, ATEN.split_with_sizes.default,
    ATEN.squeeze.dim, ATEN.t.default, ATEN.transpose.int, ATEN.unbind.int,
    ATEN.unsqueeze.default, ATEN.view.default, ATEN._unsafe_view.default, ATEN.clone.default,
}  # fmt: skip
# Of these only the part that is taken is widened.
_LOOKUPS = {
    ATEN.embedding.default,
    ATEN.gather.default,
    ATEN.index.Tensor,
    ATEN.index_select.default,
}
_PRODUCTS = {ATEN.linear.default, ATEN.mm.default, ATEN.addmm.default, ATEN.bmm.default}


class Mapped(Tensor):
    """A frozen float32 tensor that is `stored` in 16 bits; TypeError where it is written."""

    stored: Tensor

    @staticmethod
    def __new__(cls, half: Tensor) -> Mapped:  # noqa: PYI034 - a static method has no Self
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, half.shape, strides=half.stride(), dtype=torch.float32, device=half.device
        )

    def __init__(self, half: Tensor) -> None:
        super().__init__()
        self.stored = half

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Mapped({tuple(self.shape)}, {self.stored.dtype}, {self.device})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:  # lets `module.to` swap it
        return ["stored"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: Any) -> Mapped:
        return Mapped(parts["stored"])

    @classmethod
    def __torch_dispatch__(
        cls, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if op in _VIEWS and isinstance(args[0], Mapped):
            with torch.inference_mode(False), torch.no_grad():  # what is viewed was made outside
                return tree_map_only(Tensor, Mapped, op(args[0].stored, *args[1:], **named))
        if op in _LOOKUPS and isinstance(args[0], Mapped):
            return op(args[0].stored, *args[1:], **named).float()
        if op is ATEN._to_copy.default:
            return _copied(args[0].stored, named)
        if op is ATEN.as_strided.default or _is_written(op, args, named):
            raise TypeError(f"{op}: a mapped weight is read, as it is, and not written")
        if op in _PRODUCTS and sum(isinstance(each, Mapped) for each in args) == 1:
            here = (_in_room(each) if isinstance(each, Mapped) else each for each in args)
            return op(*here, **_widened(named))
        if torch.is_inference_mode_enabled():  # then even what is made of others comes here
            said = op.decompose(*args, **named)
            if said is not NotImplemented:
                return said
        return op(*_widened(args), **_widened(named))


def _is_written(op: Any, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether an operation writes to a mapped tensor."""
    if not op._schema.is_mutable:
        return False
    taken = [argument for argument in op._schema.arguments if not argument.kwarg_only]
    given = [*zip(taken, args, strict=False)]
    given += [(each, named.get(each.name)) for each in op._schema.arguments if each.kwarg_only]
    written = [value for each, value in given if each.alias_info and each.alias_info.is_write]
    return any(isinstance(each, Mapped) for each in tree_leaves(written))


_kept = threading.local()


def _in_room(weight: Mapped) -> Tensor:
    """The weight widened for one product, whose result holds nothing of it."""
    half = weight.stored
    dense = half.is_contiguous() or (half.dim() > 1 and half.mT.is_contiguous())
    if half.device.type != "cpu" or half.numel() > ROOM or not dense:
        return half.float()
    room = getattr(_kept, "room", None)
    if room is None or room.numel() < half.numel():
        with torch.inference_mode(False):  # else it could not be written outside of it
            room = _kept.room = torch.empty(half.numel(), dtype=torch.float32)
    return room[: half.numel()].as_strided(half.shape, half.stride()).copy_(half)


def _widened(values: Any) -> Any:
    return tree_map_only(Mapped, plain, values)


def _copied(half: Tensor, named: dict[str, Any]) -> Tensor:
    """`half` moved, or in another type: that of 32 bits is widened, no copy is of the file."""
    dtype = named.get("dtype") or torch.float32
    if dtype == torch.float32 and half.device != torch.device(named.get("device") or half.device):
        return Mapped(ATEN._to_copy.default(half, **(named | {"dtype": half.dtype})))
    return ATEN._to_copy.default(half, **(named | {"dtype": dtype}))


def plain(tensor: Tensor) -> Tensor:
    """The same numbers as an ordinary tensor: a mapped one is widened, any other is itself."""
    return tensor.stored.float() if isinstance(tensor, Mapped) else tensor


def in_type(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in `dtype`, no part of any graph: as it is stored where that is its type."""
    if isinstance(tensor, Mapped) and tensor.stored.dtype == dtype:
        return tensor.stored
    return tensor.detach().to(dtype)


def map_weights(model: nn.Module, drawn: Callable[[], nn.Module]) -> None:
    """Let a model of bfloat16 compute in float32: matrices as `Mapped`, all else widened for good.

    Weights that are shared stay shared. No weight can be trained afterwards. Where a buffer was
    rounded (Gemma's scale of embeddings), it is that of a `drawn` model of float32.
    """
    known: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is None:
                continue
            if id(weight) not in known:
                known[id(weight)] = nn.Parameter(_computing_in_32(weight), requires_grad=False)
            module._parameters[name] = known[id(weight)]
    if any(each.dtype == torch.bfloat16 for each in model.buffers()):
        exact = drawn()
        for name, module in model.named_modules():
            module._buffers.update(exact.get_submodule(name)._buffers)


def _computing_in_32(weight: Tensor) -> Tensor:
    half = weight.detach()
    return Mapped(half) if half.dim() > 1 and half.dtype == torch.bfloat16 else half.float()


@contextmanager
def as_stored(model: nn.Module) -> Iterator[None]:
    """While inside, a model whose weights are mapped is the ordinary one of 16 bits."""
    before = {module: dict(module._parameters) for module in model.modules()}
    known: dict[int, nn.Parameter] = {}
    for module, weights in before.items():
        for name, weight in weights.items():
            if weight is not None:
                half = nn.Parameter(in_type(weight, torch.bfloat16), requires_grad=False)
                module._parameters[name] = known.setdefault(id(weight), half)
    try:
        yield
    finally:
        for module, weights in before.items():
            module._parameters.update(weights)


def is_mapped(model: nn.Module) -> bool:
    """Whether any of a model's weights is."""
    return any(isinstance(weight, Mapped) for weight in model.parameters())


__all__ = ["Mapped", "as_stored", "in_type", "is_mapped", "map_weights", "plain"]
