"""Tokens drawn from the tail of what a teacher says, so that forward KL sees within it.

The tail as one event says nothing of how its mass lies within. Of its tokens s are drawn: token i
with the probability min(1, p_i / c), and then it stands for the mass max(p_i, c), where c is such
that the probabilities sum to s. So the mass that each token is given is its own on average, and all
that is given sums to the tail's. The gradient of forward KL by a student's logits, q - p, is right
on average; its variance, summed over the vocabulary, is sum p_i (c - p_i) <= c R, where R is the
mass of the tokens below c. Those above c are always there.

The draw is systematic (Madow 1949): the tokens are laid end to end, each as long as its mass, and
what lies at s points of one distance is taken, from a random start. One number decides it all. It
needs no scaling, which makes a priority sample (Duffield et al. 2007) biased: the likeliest by 1 to
3 % at s = 32, with two to three times the standard error in the cross-entropy.

Reverse KL and JSD have p within a logarithm: there nothing drawn is right on average. Of forward KL
it is the teacher's own entropy that is not: the value is too high, by what no student changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flyweight.distill.divergences import Top, events_

CLOSE = 1e-6  # a mass this near to c is always there: no two points ever fall into one token
DRAWING = 16  # bytes a logit, at most, that drawing takes beside the logits


@dataclass(frozen=True)
class Draw:
    """How many tokens of each tail are drawn, and where the random numbers come from (CPU)."""

    count: int
    generator: torch.Generator

    def lots(self, places: int) -> Tensor:
        """One number from 0 to 1 for each of the next places: float32 [places]."""
        return torch.rand(places, generator=self.generator)


def top_with_drawn(logits: Tensor, k: int, count: int, lots: Tensor) -> Top:
    """`top_of` with `count` tokens drawn from the tail (`Top.drawn`) by the numbers `lots` [n].

    `logits` [n, V], V > k + count, are overwritten.
    """
    indices = logits.topk(k, dim=-1).indices
    log_p, tail, whole, _ = events_(logits, indices, None)
    likely = logits.scatter_(-1, indices, -1.0).topk(count, dim=-1).indices
    found, masses = _draw_(logits.scatter_(-1, indices, 0.0), likely, lots.double()[:, None])
    share = masses.clamp_min(torch.finfo(logits.dtype).tiny).log() - whole.double().log()
    drawn = Top((share + tail.double()).to(log_p.dtype), found)
    return Top(log_p, indices, tail[:, 0], drawn=drawn)


def _draw_(mass: Tensor, likely: Tensor, lots: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens int64 [n, s] and the masses that they stand for, falling: float64 [n, s].

    `mass` [n, V] is the tail's, 0 elsewhere, and overwritten; `likely` [n, s] its likeliest tokens.
    """
    count = likely.shape[-1]
    places = torch.arange(count, device=mass.device)
    values = mass.gather(-1, likely).double()
    rest = mass.scatter_(-1, likely, 0.0).sum(-1, keepdim=True, dtype=torch.float64)
    # what c is if those before are always there: summed from the small end, nothing is cancelled
    levels = (values.flip(-1).cumsum(-1).flip(-1) + rest) / (count - places)
    sure = (values >= levels * (1 - CLOSE)).int().cumprod(-1).bool()
    certain = sure.sum(-1, keepdim=True)  # [n, 1]
    mass.scatter_(-1, likely, values.masked_fill(sure, 0.0).to(mass.dtype))
    line = mass.cumsum(-1, dtype=torch.float64)
    steps = (places - certain + lots).clamp_min(0) / (count - certain).clamp_min(1)
    found = torch.searchsorted(line, steps * line[:, -1:], right=True)
    level = levels.gather(-1, certain.clamp_max(count - 1))
    return torch.where(sure, likely, found), torch.where(sure, values, level)


def variance(drawn: Top) -> Tensor:
    """float64 [n]: a bound on the variance of forward KL's gradient, summed over the vocabulary."""
    masses = drawn.log_p.double()
    at_random = masses == masses[:, -1:]  # c R: each of them stands for c
    return (2 * masses).exp().masked_fill(~at_random, 0.0).sum(-1)


__all__ = ["DRAWING", "Draw", "top_with_drawn", "variance"]
