"""What an objective brings into a training: a teacher beside it, parameters of its own.

An objective that has an attribute `teacher` is helped by that model in each step; the parameters of
its module `learned` are trained with the student's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

LEARNED = "objective_learned"  # the name in the student, and so in checkpoints, while it trains


@contextmanager
def attached(
    model: Any, objective: Any, device: torch.device, *, plain_attention: bool
) -> Iterator[None]:
    """While inside, the objective's parameters are the student's and its teacher is ready.

    As a submodule of the student they are seen by the optimiser and kept in checkpoints without
    further ado, so that a training that is taken up goes on with them; the student that is handed
    back is without. The teacher computes attention as the student does: equals then differ by
    exactly nothing. Afterwards both are on the CPU, in eval mode.
    """
    learned, teacher = getattr(objective, "learned", None), getattr(objective, "teacher", None)
    models = [model] if teacher is None else [model, teacher.eval().to(device)]
    before = [each.config._attn_implementation for each in models]
    if learned is not None:
        model.add_module(LEARNED, learned)
    try:
        if plain_attention:
            for each in models:
                each.set_attn_implementation("eager")
        yield
    finally:
        for each, attention in zip(models, before, strict=True):
            each.to("cpu").eval()
            each.set_attn_implementation(attention)
        if learned is not None:
            delattr(model, LEARNED)


__all__ = ["LEARNED", "attached"]
