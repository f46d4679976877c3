"""First-order Taylor scores: how much a sequence's loss would move if a part said nothing.

A part is multiplied by a gate, 1 as things stand; to first order closing the gate changes the loss
by its derivative, activation x gradient summed over the sequence. It is what the weights that read
the part give as the sum of w x dL/dw (Molchanov, arXiv:1906.10771; LLM-Pruner, arXiv:2305.11627),
but no weight needs a gradient, and it is squared for each sequence: over many sequences the
derivatives of a trained model cancel, and no batch size changes a score.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.anatomy import Family, Shape, logits_from_hidden
from flyweight.shrink.batches import Batch
from flyweight.shrink.readings import Reading, routed
from flyweight.shrink.sums import Sums


def loss_of(model: Any, family: Family, batch: Batch) -> Tensor:
    """The loss in nats, summed over the sequences of a batch.

    A decoder's is the weighted cross-entropy of its next tokens, an encoder's that of its own
    likeliest label, since prompts hold none.
    """
    ids, counts = batch.ids.to(model.device), batch.counts.to(model.device)
    inputs = family.inputs(counts)
    if not family.causal:
        logits = model(input_ids=ids, **inputs).logits.float()  # [B, labels]
        return F.cross_entropy(logits, logits.argmax(-1), reduction="sum")
    weights = batch.weights.to(model.device)[:, 1:]
    wanted = weights != 0  # position t predicts token t + 1
    hidden = model.base_model(input_ids=ids, **inputs).last_hidden_state
    logits = logits_from_hidden(model, hidden[:, :-1][wanted]).float()  # [N, V]
    losses = F.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
    return (losses * weights[wanted]).sum()


@contextmanager
def differentiable(model: Any) -> Iterator[None]:
    """Gradients reach every activation and no weight."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    embedding = model.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda _, inputs, output: output.requires_grad_())
    for weight in trained:
        weight.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        hook.remove()
        for weight in trained:
            weight.requires_grad_(True)


class Gates:
    """Squared derivatives by the gates of everything that can be cut, added up over sequences."""

    def __init__(self, sums: Sums, shape: Shape) -> None:
        self.sums, self.shape = sums, shape
        self.counts = torch.zeros(0, dtype=torch.bool)  # [B, T] of the batch in hand

    def on_channels(self, reading: Reading, activation: Tensor) -> None:
        """Wait for the gradient of activations [B, T, C], or pooled ones [B, C]."""
        said = activation.detach()

        def on_gradient(gradient: Tensor) -> None:
            moved = said.float() * gradient.float()
            if moved.dim() == 3:
                moved = (moved * self.counts[..., None]).sum(1)  # [B, C]
            self._add("gate", reading, moved)
            if reading.axis == "values":
                shape = self.shape
                heads = moved.view(-1, shape.kv_groups, shape.group_heads, shape.value_dim).sum(-1)
                self._add("heads", reading, heads)
                self._add("groups", reading, heads.sum(-1))

        activation.register_hook(on_gradient)

    def on_block(self, reading: Reading, before: Tensor, after: Tensor) -> None:
        """Wait for the gradient of what a block says [B, T, D]; without it the input goes on."""
        change = after.detach().float() - before.float()

        def on_gradient(gradient: Tensor) -> None:
            moved = (change * gradient.float()).sum(-1) * self.counts  # [B, T]
            self._add("gate", reading, moved.sum(1))

        after.register_hook(on_gradient)

    def on_experts(
        self, reading: Reading, module: Any, inputs: tuple[Tensor, ...], said: Tensor
    ) -> None:
        """Wait for the gradient of what a fused module of experts says [B x T, D]."""
        hidden, chosen, weights = (each.detach() for each in inputs)

        def on_gradient(gradient: Tensor) -> None:
            rows, length = self.counts.shape
            experts = (rows, self.shape.experts, self.shape.mlp)
            moved = torch.zeros(experts, device=gradient.device)
            for each in routed(module, reading, hidden, chosen, weights, self.counts.flatten()):
                back = gradient[each.tokens].float() @ each.outward.float()  # [n, M]
                by_token = each.inner.float() * each.shares.float()[:, None] * back
                moved[:, each.expert].index_add_(0, each.tokens // length, by_token)
            self._add("gate", reading, moved)
            self._add("whole", reading, moved.sum(-1))

        said.register_hook(on_gradient)

    def _add(self, name: str, reading: Reading, moved: Tensor) -> None:
        """Add derivatives [B, ...]."""
        self.sums.add(f"{name}.{reading.module}", moved.square().sum(0))
