"""Measuring importance: one pass over the user's own prompts, read by hooks.

The pass streams: only sums are kept, and those on disk on request, so that a corpus may be larger
than memory and a pass may be killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.anatomy import Family
from flyweight.errors import OptionError, TaskError
from flyweight.placed import placed
from flyweight.progress import bar
from flyweight.shrink.batches import (
    MOST,
    WINDOW,
    Batch,
    Fed,
    Feed,
    Prompt,
    Stream,
    feed_texts,
)
from flyweight.shrink.importance import Importance
from flyweight.shrink.readings import Reading, readings_of, routed
from flyweight.shrink.scores import scores
from flyweight.shrink.sums import Saves, Sums, model_sha256
from flyweight.shrink.taylor import Gates, differentiable, loss_of

FORMAT = 1  # of the sums that are kept


def measure_importance(
    model: Any,
    family: Family,
    prompts: Iterable[Prompt],
    batch_size: int = 32,
    *,
    tokens: int | None = None,
    taylor: bool = False,
    keep: Path | None = None,
    feed: Feed | None = None,
) -> Importance:
    """Importance from one pass over `prompts`, read as they come and at most `tokens` of them.

    Prompts are token ids, or training rows whose weights say what the loss of `taylor` counts: with
    it first-order scores are added (taylor.py), for a backward pass. With a folder `keep` the sums
    are saved there now and then; a second call with the same model, prompts and settings goes on
    from them to the same bits. `feed` tells what a model is given besides texts; first-order
    scores are of texts alone. Raises FolderError if they are of others, TaskError without a token.
    """
    if keep is not None and feed is not None:
        raise OptionError("importance: sums of what is no text alone cannot be kept. Leave it out.")
    stream = Stream(prompts, batch_size, tokens)
    saves = _saves(keep, model, batch_size, tokens, taylor)
    sums = saves.load()
    meter = _Meter(model, family, sums, taylor, feed or feed_texts(family))
    total = len(prompts) if isinstance(prompts, Sized) and tokens is None else None
    done, place = sums.batches, 0
    there = () if feed is not None else (model,)  # pictures stay where they are
    with placed(*there), bar("Measuring importance", total) as running, meter.reading():
        for place, batch in enumerate(stream, 1):
            if place > done:
                meter.take(batch)
                saves.save(sums, stream.sha256)
            elif place == done:
                saves.check(stream.sha256)
            running.advance(len(batch.ids))
    if place < done:
        saves.check(stream.sha256)
    if not sums.tokens:
        raise TaskError("there is no token to measure importance on. Give prompts that hold some.")
    if place > done:
        saves.save(sums, stream.sha256, now=True)
    return scores(model, family, meter.readings, sums)


def _saves(
    keep: Path | None, model: Any, batch_size: int, tokens: int | None, taylor: bool
) -> Saves:
    if keep is None:
        return Saves(None, {})
    settings = (FORMAT, torch.__version__, WINDOW, MOST, batch_size, tokens, taylor)
    return Saves(keep, {"model": model_sha256(model), "settings": settings})


class _Meter:
    """A model's hooks, and the sums that they add to."""

    def __init__(self, model: Any, family: Family, sums: Sums, taylor: bool, feed: Feed) -> None:
        self.model, self.family, self.sums, self.feed = model, family, sums, feed
        self.readings = readings_of(family, model.config)
        self.shape = family.shape_of(model.config)
        self.fed = Fed({}, torch.zeros(0, dtype=torch.bool))  # of the batch in hand
        self.gates = Gates(sums, self.shape) if taylor else None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The model with hooks on everything that is read."""
        hooks = [
            self.model.get_submodule(reading.module).register_forward_hook(
                self._hook(reading), with_kwargs=True
            )
            for reading in self.readings
        ]
        try:
            if self.gates is None:
                with torch.inference_mode():
                    yield
            else:
                with differentiable(self.model):
                    yield
        finally:
            for hook in hooks:
                hook.remove()

    def take(self, batch: Batch) -> None:
        """Add one batch."""
        self.fed = self.feed(self.model, batch)
        if self.gates is None:
            whole = self.model.base_model if self.family.causal else self.model  # needs no head
            whole(**self.fed.inputs)
        else:
            self.gates.counts = self.fed.counts
            loss_of(self.model, self.family, batch).backward()
        self.sums.batches += 1
        self.sums.sequences += len(batch.ids)
        self.sums.tokens += int(batch.counts.sum())

    def _hook(self, reading: Reading) -> Any:
        blocks = dict.fromkeys(("layers", "encoder_layers"), self._read_block)
        read = {"experts": self._read_experts, **blocks}.get(reading.axis)

        def on_forward(module: Any, given: tuple[Tensor, ...], named: Any, output: Any) -> None:
            said = output[0] if isinstance(output, tuple) else output
            inputs = given or (named["hidden_states"],)
            if read is not None:
                read(reading, module, inputs, said)
            else:
                self._read_channels(reading, said if reading.axis == "hidden" else inputs[0])

        return on_forward

    def _read_channels(self, reading: Reading, activation: Tensor) -> None:
        """Add activations [B, T, C], or pooled ones [B, C], which stand for all their tokens."""
        said, counts = activation.detach().float(), self.fed.of(reading.axis)
        if said.dim() == 2:
            squares = said.square() * counts.sum(1, keepdim=True)
        else:
            squares = said[counts].square()  # [N, C]
        self.sums.add(f"square.{reading.module}", squares.sum(0))
        if self.gates is not None:
            self.gates.on_channels(reading, activation)

    def _read_block(
        self, reading: Reading, _: Any, inputs: tuple[Tensor, ...], after: Tensor
    ) -> None:
        """Add what a block makes of its input, both [B, T, D]."""
        before, counts = inputs[0], self.fed.of(reading.axis)
        ends = (before.detach()[counts].float(), after.detach()[counts].float())
        self.sums.add(f"influence.{reading.module}", (1 - F.cosine_similarity(*ends, -1)).sum())
        if self.gates is not None:
            self.gates.on_block(reading, before.detach(), after)

    def _read_experts(
        self, reading: Reading, module: Any, inputs: tuple[Tensor, ...], said: Tensor
    ) -> None:
        """Add what each expert's channels say [E, M], and what it adds to the stream [E]."""
        inner = torch.zeros(self.shape.experts, self.shape.mlp, dtype=torch.float64)
        added = torch.zeros(self.shape.experts, dtype=torch.float64)
        hidden, chosen, weights = inputs
        counts = self.fed.counts.flatten()
        with torch.no_grad():
            for each in routed(module, reading, hidden, chosen, weights, counts):
                shared = each.inner.float() * each.shares.float()[:, None]
                inner[each.expert] = shared.square().sum(0)
                added[each.expert] = F.linear(shared, each.outward.float()).norm(dim=-1).sum()
        self.sums.add(f"square.{reading.module}", inner)
        self.sums.add(f"added.{reading.module}", added)
        if self.gates is not None:
            self.gates.on_experts(reading, module, inputs, said)
