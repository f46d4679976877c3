"""An objective's mean over rows that a model is not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from flyweight.distill.losses import Objective
from flyweight.distill.trainer import Row, collate
from flyweight.placed import placed


@torch.inference_mode()
def mean_loss(objective: Objective, model: Any, rows: Sequence[Row], batch_size: int) -> float:
    """Its mean over all wanted tokens of the rows, whatever batch they are in."""
    total = tokens = 0.0
    beside = [each for each in (getattr(objective, "teacher", None),) if each is not None]
    with placed(model, *beside):
        for start in range(0, len(rows), batch_size):
            batch = collate(rows[start : start + batch_size])
            weight = float(batch["weights"][:, 1:].sum())
            batch = {name: each.to(model.device) for name, each in batch.items()}
            total += float(objective(model, batch)) * weight
            tokens += weight
    return total / tokens


__all__ = ["mean_loss"]
