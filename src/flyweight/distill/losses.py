"""What a student is trained towards. An objective is a callable (model, batch) -> loss.

A batch holds `input_ids` int64 [B, T], right-padded; `weights` float32 [B, T], the weight of
predicting that token (0: padding or unwanted); and what the objective itself put there.
Logits are computed only where a weight is not zero: N positions of the B x T.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

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
    return mixed_loss(student, indices[:, 0], top, indices, 1.0)


def mixed_loss(student: Tensor, targets: Tensor, top: Tensor, indices: Tensor, kl: float) -> Tensor:
    """kl * `forward_kl` + (1 - kl) * cross-entropy of `targets` [N], in nats [N].

    Loss and gradient are worked out together in a few passes over the logits: left to autograd,
    the two softmaxes and the tail's sum take a third of a small student's step.
    """
    return cast(Tensor, _MixedLoss.apply(student, targets, top, indices, kl))


class _MixedLoss(torch.autograd.Function):
    """`mixed_loss`, whose gradient is q - kl * p - (1 - kl) * onehot.

    q is the student's distribution, p the teacher's, which shares out its tail's mass over the
    tokens there as the student does.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, student: Tensor, targets: Tensor, top: Tensor, indices: Tensor, kl: float
    ) -> Tensor:
        norm = student.logsumexp(-1, keepdim=True)  # [N, 1]
        top_q = student.gather(-1, indices) - norm  # [N, k]
        divergence = (top.exp() * (top - top_q)).sum(-1)
        probabilities = (student - norm).exp_().scatter_(-1, indices, 0.0)  # [N, V], tail only
        keep = torch.ones_like(norm)  # what of a tail token's q remains in the gradient
        if indices.shape[-1] < student.shape[-1]:
            tail_p = log1mexp(top.logsumexp(-1))
            # summed, not 1 - mass: a confident student's tail would be lost in the rounding
            tail_q = probabilities.sum(-1).clamp_min(torch.finfo(student.dtype).tiny)
            divergence += tail_p.exp() * (tail_p - tail_q.log())
            keep -= kl * (tail_p.exp() / tail_q)[:, None]
        said = (student.gather(-1, targets[:, None]) - norm)[:, 0]
        if ctx.needs_input_grad[0]:
            probabilities.mul_(keep).scatter_(-1, indices, top_q.exp() - kl * top.exp())
            lacking = torch.full_like(norm, kl - 1)
            ctx.save_for_backward(probabilities.scatter_add_(-1, targets[:, None], lacking))
        return kl * divergence - (1 - kl) * said

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (by_row,) = ctx.saved_tensors
        return by_row * gradient[:, None], None, None, None, None


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
        top, indices = batch["top"].float(), batch["indices"].long()
        return weighted_mean(mixed_loss(logits, targets, top, indices, self.kl), weights, batch)
