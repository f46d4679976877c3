"""What an objective brings into a training: a teacher beside it, parameters of its own.

An objective that has an attribute `teacher` is helped by that model in each step; the parameters of
its module `learned` are trained with the student's. `tokens_besides` says how many tokens each row
has that are not in the batch, for the memory that they take and the attention that suits them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from flyweight.mapped import in_type
from flyweight.placed import moved

LEARNED = "objective_learned"  # the name in the student, and so in checkpoints, while it trains


@contextmanager
def attached(
    model: Any,
    objective: Any,
    device: torch.device,
    dtype: torch.dtype,
    *,
    plain_attention: bool,
) -> Iterator[None]:
    """While inside, the objective's parameters are the student's and its teacher is ready.

    As a submodule of the student they are seen by the optimiser and kept in checkpoints without
    further ado, so that a training that is taken up goes on with them; the student that is handed
    back is without. The teacher computes attention as the student does: equals then differ by
    exactly nothing. `dtype` is what products are taken in. Afterwards both are on the CPU, in eval
    mode.
    """
    teacher = getattr(objective, "teacher", None)
    with ExitStack() as stack:
        stack.enter_context(_as_it_was(model, plain_attention))
        if teacher is not None:
            stack.enter_context(_as_it_was(teacher.eval(), plain_attention))
            stack.enter_context(multiplied_in(dtype, teacher))
            stack.enter_context(moved(teacher, device))
        stack.enter_context(with_learned(model, objective))
        yield


@contextmanager
def with_learned(model: Any, objective: Any) -> Iterator[None]:
    """While inside, what an objective learns is the model's; afterwards both are on the CPU."""
    learned = getattr(objective, "learned", None)
    if learned is None:
        yield
        return
    model.add_module(LEARNED, learned)
    try:
        yield
    finally:
        model.to("cpu")
        delattr(model, LEARNED)


@contextmanager
def _as_it_was(model: Any, plain_attention: bool) -> Iterator[None]:
    attention = model.config._attn_implementation
    if plain_attention:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.to("cpu").eval()
        model.set_attn_implementation(attention)


@contextmanager
def multiplied_in(dtype: torch.dtype, model: Any) -> Iterator[None]:
    """While inside, a frozen model's linear layers hold their weights in `dtype`.

    Autocast multiplies in that type anyhow: the results are the same, without casting every weight
    in every step, a fifth of a small teacher's pass. A head that is tied leaves the embedding as it
    is. In fp32 there is no autocast, and each weight stays in the type of those beside it.
    Afterwards the layers have the very weights from before.
    """
    narrow = dtype != torch.float32
    layers = [each for each in model.modules() if narrow and isinstance(each, nn.Linear)]
    before = [dict(layer._parameters) for layer in layers]
    for layer, kept in zip(layers, before, strict=True):
        for name, weight in kept.items():
            if weight is not None:
                cast = in_type(weight, dtype)
                layer._parameters[name] = nn.Parameter(cast, requires_grad=False)
    try:
        yield
    finally:
        for layer, kept in zip(layers, before, strict=True):
            layer._parameters.update(kept)


__all__ = ["LEARNED", "attached", "multiplied_in", "with_learned"]
