"""How far a student is from its teacher at each position: value and gradient in a few passes.

The generalised Jensen-Shannon divergence of Agarwal et al. (2024, arXiv 2306.13649), p the teacher
and q the student: `beta` 0 is KL(p || q) (forward), 1 is KL(q || p) (reverse), and between them
beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q. It goes to 0 at both ends:
divided by beta to forward KL, by 1 - beta to reverse KL.

A vocabulary that was cut splits each of them by the chain rule. Whether the token is one that the
student has is decided by the teacher alone: that part is infinite or constant, and left out. Which
of them it is remains, between the teacher renormalised over the kept tokens and the student. Its
gradient is that of the whole; it is finite, 0 only where the student does as well as it can, and
the plain divergence where the teacher gives what was cut no mass.

Everything works in place on blocks of positions that fit a cache (distill/chunked.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST, LEAST = 80.0, -200.0  # of log p/q: exp of more overflows, exp of less is 0
NEVER = -1e4  # the log-probability of what cannot be


@dataclass(frozen=True)
class Blend:
    """`share` x T^2 x divergence at temperature T + (1 - `share`) x cross-entropy of the answers.

    T^2 keeps the gradient's size (Hinton et al. 2015, section 2). Cross-entropy is at T = 1.
    """

    share: float = 1.0
    beta: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.share <= 1 and 0 <= self.beta <= 1 and 0 < self.temperature < math.inf):
            raise ValueError(f"{self}: share and beta are from 0 to 1, temperature is above 0")

    def for_mass(self, log_mass: Tensor | None) -> tuple[float | Tensor, float | Tensor]:
        """beta, and the factor of the divergence, where the teacher gave the kept tokens a mass.

        `log_mass` [n, 1]; None where nothing was cut.
        """
        if log_mass is None or self.beta == 1:
            return self.beta, 1.0
        mass = log_mass.exp()
        if self.beta == 0:
            return self.beta, mass
        mixed = self.beta * mass + 1 - self.beta
        return self.beta * mass / mixed, mixed


def diverge_(
    log_q: Tensor, log_p: Tensor, spare: tuple[Tensor, Tensor], beta: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The divergence [n], q [n, E] and the gradient by the student's logits [n, E] over E events.

    All four arguments are overwritten: q and the gradient are two of them.
    """
    if isinstance(beta, float | int) and beta == 0:
        p, q = torch.exp(log_p, out=spare[0]), torch.exp(log_q, out=spare[1])
        values = log_p.sub_(log_q).mul_(p).sum(-1)
        return values, q, torch.sub(q, p, out=log_p)
    if isinstance(beta, float | int) and beta == 1:
        q = torch.exp(log_q, out=spare[0])
        ratio = torch.sub(log_q, log_p, out=log_p)
        values = torch.mul(q, ratio, out=log_q).sum(-1)
        return values, q, ratio.sub_(values[:, None]).mul_(q)
    p = torch.exp(log_p, out=spare[0])
    ratio = log_p.sub_(log_q).clamp_(LEAST, LARGEST)  # log p/q
    q = log_q.exp_()
    # log m/q; as 1 + beta (p/q - 1), so that it is exactly 0 between equals
    mixture = torch.exp(ratio, out=spare[1]).sub_(1).mul_(beta).add_(1).log_()
    by_p = ratio.sub_(mixture).mul_(p).sum(-1, keepdim=True)  # KL(p || m)
    by_q = torch.mul(q, mixture, out=p).sum(-1, keepdim=True)  # -KL(q || m)
    gradient = mixture.neg_().add_(by_q).mul_(q).mul_(1 - beta)
    return (beta * by_p - (1 - beta) * by_q)[:, 0], q, gradient


def against_logits_(
    blend: Blend,
    student: Tensor,
    teacher: Tensor,
    targets: Tensor,
    weights: Tensor,
    spare: tuple[Tensor, Tensor],
    log_mass: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The blend's values [n] and `weights` [n] x its gradient [n, V], from all the logits [n, V].

    `student`, `teacher` and the two `spare` are overwritten; the gradient is one of them.
    `log_mass` [n, 1] as in `Blend.for_mass`.
    """
    by_row, temperature = weights[:, None], blend.temperature
    alone = blend.share < 1 and temperature != 1  # cross-entropy then needs a softmax of its own
    said = cross_entropy_(student.clone(), targets, weights) if alone else None
    if temperature != 1:
        student.div_(temperature)
        teacher.div_(temperature)
    log_q = torch.log_softmax(student, -1, out=spare[0])
    log_p = torch.log_softmax(teacher, -1, out=spare[1])
    lost = -log_q.gather(-1, targets[:, None])[:, 0]
    beta, scale = blend.for_mass(log_mass)
    values, q, gradient = diverge_(log_q, log_p, (student, teacher), beta)
    factor = scale * blend.share * temperature  # [n, 1] or a number
    gradient.mul_(by_row * factor)
    values = values * (factor[:, 0] if isinstance(factor, Tensor) else factor) * temperature
    if said is not None:
        gradient.add_(said[1], alpha=1 - blend.share)
        lost = said[0]
    elif blend.share < 1:
        gradient.add_(q.mul_(by_row * (1 - blend.share)))
        gradient.scatter_add_(-1, targets[:, None], by_row * (blend.share - 1))
    return (values + (1 - blend.share) * lost if blend.share < 1 else values), gradient


@dataclass(frozen=True)
class Top:
    """The teacher's k likeliest tokens: `log_p` [n, k] of `indices` [n, k], and all others as one.

    `tail` [n] is the logarithm of the others' mass; None: what is missing to 1. All are at
    temperature 1. `lost` bool [n, k] marks tokens that the student does not have, `log_mass`
    [n, 1] is what share of the tokens' mass the others have, and `log_p` and `tail` are relative to
    that: made by `Alignment.top`, which says what the indices of lost tokens are. `drawn` are some
    of the others, whose `log_p` [n, s] sum to the tail (drawn.py); losses take no notice of them.
    """

    log_p: Tensor
    indices: Tensor
    tail: Tensor | None = None
    lost: Tensor | None = None
    log_mass: Tensor | None = None
    drawn: Top | None = None

    def __getitem__(self, rows: slice) -> Top:
        """The same of some positions, ready to compute with."""
        tail, lost, mass = (
            None if each is None else each[rows] for each in (self.tail, self.lost, self.log_mass)
        )
        return Top(self.log_p[rows].float(), self.indices[rows].long(), tail, lost, mass)


def top_of(logits: Tensor, k: int) -> Top:
    """The k likeliest tokens of logits [n, V] and their tail; `logits` are overwritten.

    The same operations as in `against_top_`: a student that equals its teacher gets exactly 0.
    """
    indices = logits.topk(k, dim=-1).indices
    log_p, tail, _, _ = events_(logits, indices, None)
    return Top(log_p, indices, tail[:, 0])


def events_(
    logits: Tensor, indices: Tensor, lost: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities [n, k] of the tokens `indices`; of the others [n, 1]; their sum; the norm.

    `logits` become exp(logits - largest), 0 at `indices`: [n, V], whose sum is the third result.
    The norm [n, 1] is the logits' log sum exp.
    """
    largest = logits.amax(-1, keepdim=True)
    inside = logits.gather(-1, indices).sub_(largest)
    logits.sub_(largest).exp_()
    if lost is None:
        logits.scatter_(-1, indices, 0.0)
    else:  # where no token is left, the index stands for nothing and its token stays
        inside.masked_fill_(lost, NEVER)
        nothing = lost.all(-1, keepdim=True)
        logits.scatter_(-1, indices, logits.gather(-1, indices) * nothing)
    # summed, not 1 - the others: a confident student's tail would be lost in the rounding
    tail = logits.sum(-1, keepdim=True).clamp_min(torch.finfo(logits.dtype).tiny)
    total = (tail + inside.exp().sum(-1, keepdim=True)).log()
    return inside - total, tail.log() - total, tail, largest + total


def against_top_(
    blend: Blend, student: Tensor, top: Top, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The blend's values [n] and `weights` [n] x its gradient [n, V], from a teacher's top k.

    Tokens outside the top k count as one: a lower bound of the full divergence, exact for k = V.
    `student` logits [n, V] are overwritten by the gradient. The blend's temperature is 1.
    """
    assert blend.temperature == 1
    by_row, share = weights[:, None], blend.share
    answer = student.gather(-1, targets[:, None])
    log_q, tail_q, tail, norm = events_(student, top.indices, top.lost)
    events_q, events_p = _both(top, log_q, tail_q, student.shape[-1])
    beta, scale = blend.for_mass(top.log_mass)
    spare = torch.empty_like(events_q), torch.empty_like(events_q)
    values, q, events = diverge_(events_q, events_p, spare, beta)
    values = values[:, None] * scale * share
    events.mul_(scale * share)
    if share < 1:
        events.add_(q, alpha=1 - share)
        values = values + (1 - share) * (norm - answer)
    k = top.indices.shape[-1]
    if events.shape[-1] > k:  # the tail's part of the gradient falls to its tokens as q does
        student.mul_(by_row * events[:, k:] / tail)
    student.scatter_add_(-1, top.indices, by_row * events[:, :k])
    if share < 1:
        student.scatter_add_(-1, targets[:, None], by_row * (share - 1))
    return values[:, 0], student


def _both(top: Top, log_q: Tensor, tail_q: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities [n, k + 1] of the student and the teacher; [n, k] where there is no tail.

    A token that was lost is impossible for both, and adds nothing.
    """
    log_p = top.log_p.clone()
    if top.lost is not None:
        log_q, log_p = log_q.masked_fill(top.lost, NEVER), log_p.masked_fill(top.lost, NEVER)
    elif log_p.shape[-1] == size:
        return log_q, log_p
    tail_p = log1mexp(log_p.logsumexp(-1)) if top.tail is None else top.tail
    return torch.cat([log_q, tail_q], -1), torch.cat([log_p, tail_p[:, None]], -1)


def cross_entropy_(student: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """-log q of `targets` [n], and `weights` [n] x its gradient in place of `student` [n, V]."""
    by_row, targets = weights[:, None], targets[:, None]
    largest = student.amax(-1, keepdim=True)
    said = student.gather(-1, targets) - largest
    norm = student.sub_(largest).exp_().sum(-1, keepdim=True)
    student.mul_(by_row / norm).scatter_add_(-1, targets, -by_row)
    return (norm.log() - said)[:, 0], student


def log1mexp(log_mass: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, kept away from log 0 by one part in ten million."""
    return torch.log1p(-log_mass.exp().clamp(max=1 - 1e-7))


__all__ = [
    "Blend",
    "Top",
    "against_logits_",
    "against_top_",
    "cross_entropy_",
    "diverge_",
    "events_",
    "log1mexp",
    "top_of",
]
