"""What a student is trained towards. An objective is a callable (model, batch) -> loss.

A batch holds `input_ids` int64 [B, T], right-padded; `weights` float32 [B, T], the weight of
predicting that token (0: padding or unwanted); `total`, where the trainer says what the weights of
an average batch add up to: tokens of short batches then weigh no more; `position_ids` int64 [B, T]
where documents share a row; `share`, how much of a batch that is taken in parts it is (parts.py);
and what the objective itself put there. Only positions before a wanted token are judged: N of the
B x T, chunk by chunk (chunked.py), so that the logits of a whole batch are never held.

What more an objective may bring into a training stands in attached.py; all by their names in
objectives.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from flyweight.distill.alignment import Alignment
from flyweight.distill.chunked import chunked_loss
from flyweight.distill.divergences import Blend, Top
from flyweight.distill.head import head_of
from flyweight.distill.judges import Answers, Recorded

Batch = dict[str, Tensor]
Objective = Callable[[nn.Module, Batch], Tensor]
Hidden = Callable[[Any, Batch], Tensor]  # final states [N, D] before the N wanted tokens
# Batches are as long as a multiple of this: oneDNN keeps code of its own, a quarter of a megabyte,
# for every size that it multiplies, so that memory grew by 8 MB a step; the time is the same.
MULTIPLE = 8


def final_hidden(model: Any, batch: Batch) -> Tensor:
    """Final hidden states [B, T, D]; documents that share a row do not see each other (packing.py).

    Attention needs no padding mask: it is causal and the padding stands on the right.
    """
    given = {key: batch[key] for key in ("input_ids", "position_ids") if key in batch}
    return model.base_model(**given, use_cache=False).last_hidden_state


def wanted_hidden(model: Any, batch: Batch) -> Tensor:
    """Final hidden states [N, D] at the positions before a token with a weight."""
    return before_wanted(final_hidden(model, batch), batch)


def before_wanted(hidden: Tensor, batch: Batch) -> Tensor:
    """Those of hidden states [B, T, D] at the positions before a token with a weight [N, D]."""
    return hidden[:, :-1][batch["weights"][:, 1:] != 0]  # position t predicts token t + 1


def wanted_tokens(batch: Batch) -> tuple[Tensor, Tensor]:
    """The tokens that are to be predicted [N], and their weights over the batch's total [N]."""
    weights = batch["weights"][:, 1:]
    wanted = weights != 0
    total = batch.get("total")
    share = weights[wanted] / (weights.sum() if total is None else total)
    return batch["input_ids"][:, 1:][wanted], share


def cross_entropy(model: nn.Module, batch: Batch, hidden: Hidden = wanted_hidden) -> Tensor:
    """Mean negative log-likelihood in nats a token, weighted."""
    targets, weights = wanted_tokens(batch)
    return chunked_loss(hidden(model, batch), head_of(model), weights, Answers(targets))


@dataclass(frozen=True)
class Distillation:
    """kl * divergence from what a teacher said before + (1 - kl) * cross-entropy on the answers.

    `beta` 0 is KL(teacher || student); divergences.py has the others. The batch carries the
    teacher's `top` [N, k] log-probabilities of `indices` [N, k], its own token ids, in the order
    of the wanted positions, and may carry the logarithm of the others' mass, `tail` [N]: they all
    count as one. `alignment` where the heads differ.
    """

    kl: float
    beta: float = 0.0
    alignment: Alignment | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        targets, weights = wanted_tokens(batch)
        said = Top(batch["top"], batch["indices"], batch.get("tail"))
        judge = Recorded(Blend(self.kl, self.beta), said, targets, self.alignment)
        return chunked_loss(wanted_hidden(model, batch), head_of(model), weights, judge)


__all__ = [
    "Batch",
    "Distillation",
    "Hidden",
    "Objective",
    "before_wanted",
    "cross_entropy",
    "final_hidden",
    "wanted_hidden",
    "wanted_tokens",
]
