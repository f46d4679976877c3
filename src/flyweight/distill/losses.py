"""What a student is trained towards. An objective is a callable (model, batch) -> loss.

A batch holds `input_ids` int64 [B, T], right-padded; `weights` float32 [B, T], the weight of
predicting that token (0: padding or unwanted); and what the objective itself put there.
Logits are computed only where a weight is not zero: N positions of the B x T.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.anatomy import logits_from_hidden

Batch = dict[str, Tensor]
Objective = Callable[[nn.Module, Batch], Tensor]


def wanted_logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits float32 [N, V] where a token is to be predicted, its targets [N] and weights [N].

    Attention needs no padding mask: it is causal and the padding stands on the right.
    """
    ids, weights = batch["input_ids"], batch["weights"]
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state  # [B, T, D]
    wanted = weights[:, 1:] != 0  # position t predicts token t + 1
    logits = logits_from_hidden(model, hidden[:, :-1][wanted])
    return logits.float(), ids[:, 1:][wanted], weights[:, 1:][wanted]


def weighted_mean(values: Tensor, weights: Tensor, batch: Batch) -> Tensor:
    """Sum of `values` x `weights` [N] over `batch["total"]`, or over their own sum without one.

    The trainer gives the average batch's total: tokens of short batches then weigh no more.
    """
    total = batch.get("total")
    return (values * weights).sum() / (weights.sum() if total is None else total)


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean negative log-likelihood in nats a token, weighted."""
    logits, targets, weights = wanted_logits(model, batch)
    return weighted_mean(F.cross_entropy(logits, targets, reduction="none"), weights, batch)


def forward_kl(student: Tensor, top: Tensor, indices: Tensor) -> Tensor:
    """KL(teacher || student) [N] in nats, from the teacher's top-k and the mass of its tail.

    `student` logits [N, V]; `top` the teacher's log-probabilities [N, k] of the tokens `indices`
    [N, k]. Tokens outside the top k count as one: the result is a lower bound of the full KL,
    exact for k = V, and 0 when the two agree on the top k.
    """
    log_q = student.log_softmax(-1)
    top_q = log_q.gather(-1, indices)
    inside = (top.exp() * (top - top_q)).sum(-1)
    if indices.shape[-1] == student.shape[-1]:
        return inside
    tail_p = log1mexp(top.logsumexp(-1))
    # summed, not 1 - mass: a confident student's tail would be lost in the rounding
    tail_q = log_q.scatter(-1, indices, -torch.inf).logsumexp(-1)
    return inside + tail_p.exp() * (tail_p - tail_q)


def log1mexp(log_mass: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, kept away from log 0 by one part in ten million."""
    return torch.log1p(-log_mass.exp().clamp(max=1 - 1e-7))


@dataclass(frozen=True)
class Distillation:
    """kl * KL(teacher || student) + (1 - kl) * cross-entropy on the answers.

    The batch carries the teacher's `top` [N, k] and `indices` [N, k], in the order of the
    wanted positions.
    """

    kl: float = 0.7

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        logits, targets, weights = wanted_logits(model, batch)
        divergence = forward_kl(logits, batch["top"].float(), batch["indices"].long())
        likelihood = F.cross_entropy(logits, targets, reduction="none")
        return weighted_mean(self.kl * divergence + (1 - self.kl) * likelihood, weights, batch)
