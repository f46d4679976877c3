"""Weights of prompt, answer and tool calls, up to what they do to a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from flyweight.distill.losses import cross_entropy
from flyweight.distill.weights import TokenWeights
from flyweight.errors import OptionError


def test_each_token_has_the_weight_of_what_it_is() -> None:
    found = TokenWeights(0.25, 1.0, 3.0).of(9, 3, [(1, 4), (6, 8)])
    assert found.tolist() == [0.25, 0.25, 0.25, 3, 1, 1, 3, 3, 1]
    assert TokenWeights(0.0).of(4, 2).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("bad", [(-0.1, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, float("nan"), 1.0)])
def test_weights_have_limits(bad: tuple[float, float, float]) -> None:
    with pytest.raises(OptionError, match="at least 0"):
        TokenWeights(*bad)


def test_the_loss_is_the_weighted_mean_over_tokens(small_model: Callable[..., Any]) -> None:
    model = small_model(num_hidden_layers=1)
    ids = torch.randint(3, 80, (1, 12), generator=torch.Generator().manual_seed(0))
    weights = torch.from_numpy(TokenWeights(0.0, 1.0, 4.0).of(12, 5, [(8, 10)]))[None]
    each = -model(ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
    wanted = (each * weights[0, 1:]).sum() / weights[0, 1:].sum()
    found = cross_entropy(model, {"input_ids": ids, "weights": weights})
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
