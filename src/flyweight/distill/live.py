"""Objectives with the teacher in the same process: on the batch's answers, or on the student's own.

Like those of losses.py, each is a callable (model, batch) -> loss. The teacher's logits are never
kept: it is run on the batch, and compared chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from flyweight.distill.alignment import Alignment, align
from flyweight.distill.chunked import chunked_loss
from flyweight.distill.divergences import Blend
from flyweight.distill.head import head_of
from flyweight.distill.judges import Live
from flyweight.distill.losses import MULTIPLE, Batch, Hidden, wanted_hidden, wanted_tokens
from flyweight.errors import OptionError

HEAT = 1.0  # at which the student writes: as it is


@dataclass(frozen=True)
class LiveDistillation:
    """A blend of divergence and cross-entropy against a teacher that is run on each batch.

    `alignment` where the heads' rows differ (`align`; TeacherError without it); `to_teacher` int64
    [student's tokens], the teacher's ids of them, where its vocabulary was cut; `hidden`, how both
    are run on a batch that is not of texts alone.
    """

    teacher: Any
    blend: Blend
    alignment: Alignment | None = None
    to_teacher: Tensor | None = None
    hidden: Hidden = wanted_hidden

    def unjudged(self, model: Any) -> list[int]:
        """The rows of the student's head that the teacher says nothing about: no tokens, mostly."""
        if self.alignment is None:
            return []
        told = torch.zeros(len(head_of(model).weight), dtype=torch.bool)
        told[self.alignment.student] = True
        return (~told).nonzero()[:, 0].tolist()

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        targets, weights = wanted_tokens(batch)
        with torch.no_grad():
            said = self.hidden(self.teacher, in_teachers_ids(batch, self.to_teacher))
        mine, yours = head_of(model), head_of(self.teacher)
        alignment = self.alignment or align(len(mine.weight), len(yours.weight))
        judge = Live(self.blend, said, yours, targets, alignment)
        return chunked_loss(self.hidden(model, batch), mine, weights, judge)


def in_teachers_ids(batch: Batch, to_teacher: Tensor | None) -> Batch:
    """The batch with the teacher's ids of the same tokens; None where they are the same."""
    if to_teacher is None:
        return batch
    ids = batch["input_ids"]
    return batch | {"input_ids": to_teacher.to(ids.device)[ids].clamp_min(0)}


@dataclass(frozen=True)
class OnPolicy:
    """The student answers the batch's prompts itself, and the teacher judges what it wrote.

    On-policy distillation (Agarwal et al. 2024, arXiv 2306.13649). A `share` of the batches is
    learned this way, the rest on their own answers with the blend of `judge`; so are packed rows,
    always, which have no one prompt to answer. On what the student wrote the blend's divergence
    counts alone, without cross-entropy: that is no truth.
    """

    judge: LiveDistillation
    share: float = 0.5
    longest: int = 128  # tokens that it writes

    @property
    def teacher(self) -> Any:
        """The model that judges."""
        return self.judge.teacher

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        if "position_ids" in batch or torch.rand(()) >= self.share:
            return self.judge(model, batch)
        written = write(model, batch, self.longest, HEAT, self.judge.unjudged(model))
        if "share" in batch:  # a part of a batch (parts.py) weighs as much as its rows
            written["total"] = written["weights"][:, 1:].sum() / batch["share"]
        return replace(self.judge, blend=replace(self.judge.blend, share=1.0))(model, written)


def write(model: Any, batch: Batch, longest: int, heat: float, never: Sequence[int] = ()) -> Batch:
    """A batch of the same prompts with the model's own answers, each token of them at weight 1.

    A prompt's length is in `batch["prompt_lengths"]` int64 [B], or else it ends where the weights
    first reach 1 (`teacher.answer_rows`). Draws from torch's global generator, whose state
    checkpoints hold; of the generation config only the end tokens count: a penalty would make the
    answers another model's. Tokens in `never` are not written. The answer ends with the config's
    end token or after `longest` tokens. At a `heat` of 0 each token is the likeliest.
    """
    lengths = batch.get("prompt_lengths")
    if lengths is None:
        lengths = (batch["weights"] >= 1).to(torch.uint8).argmax(1)
    if (lengths == 0).any():
        raise OptionError(
            "on-policy: a row of the batch has no prompt before an answer of weight 1."
        )
    prompts, mask = _left_padded(batch["input_ids"], lengths)
    sampling = {"do_sample": True, "temperature": heat, "top_k": 0, "top_p": 1.0}
    plain = GenerationConfig(
        max_new_tokens=longest,
        pad_token_id=0,
        use_cache=True,
        eos_token_id=_ends(model).tolist() or None,
        suppress_tokens=list(never) or None,
        **(sampling if heat > 0 else {"do_sample": False}),
    )
    training, used = model.training, model.config.use_cache
    model.eval()
    try:
        with torch.no_grad():
            said = _sampled(model, plain, prompts, mask)
    finally:
        model.train(training)
        model.config.use_cache = used
        torch.clear_autocast_cache()  # its copies of the weights were made without a graph
    return _joined(batch["input_ids"], lengths, said[:, prompts.shape[1] :], _ends(model))


def _sampled(model: Any, plain: Any, prompts: Tensor, mask: Tensor) -> Tensor:
    """What is generated by this config alone: transformers fills its gaps from the model's own."""
    own = model.generation_config
    model.generation_config = plain
    try:
        return model.generate(prompts, attention_mask=mask)
    finally:
        model.generation_config = own


def _left_padded(ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts int64 [B, P] that end together, and which of their tokens are no padding."""
    width = int(lengths.max())
    places = torch.arange(width, device=ids.device) - (width - lengths[:, None])  # [B, P]
    return ids.gather(1, places.clamp_min(0)) * (places >= 0), (places >= 0).long()


def _joined(ids: Tensor, lengths: Tensor, said: Tensor, ends: Tensor) -> Batch:
    """Prompts and answers [B, A] as right-padded rows; an answer counts up to its end token."""
    ended = torch.isin(said, ends.to(said.device))
    counts = ended.cumsum(1) - ended.long() == 0  # the end token too
    width = int(lengths.max()) + said.shape[1]
    rows = ids.new_zeros(len(ids), width + -width % MULTIPLE)
    rows[:, : int(lengths.max())] = ids[:, : int(lengths.max())]
    weights = torch.zeros(rows.shape, device=ids.device)
    places = lengths[:, None] + torch.arange(said.shape[1], device=ids.device)
    rows.scatter_(1, places, said * counts)
    weights.scatter_(1, places, counts.to(weights.dtype))
    beyond = torch.arange(rows.shape[1], device=ids.device) >= lengths[:, None]
    rows = torch.where(beyond & (weights == 0), 0, rows)
    return {"input_ids": rows, "weights": weights}


def _ends(model: Any) -> Tensor:
    end = model.generation_config.eos_token_id
    if end is None:
        end = model.config.eos_token_id
    return torch.tensor([] if end is None else [end] if isinstance(end, int) else list(end))


__all__ = ["LiveDistillation", "OnPolicy", "in_teachers_ids", "write"]
