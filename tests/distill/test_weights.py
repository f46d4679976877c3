"""Weights of prompt, answer and tool calls, up to what they do to a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flyweight.distill.losses import cross_entropy
from flyweight.distill.weights import TokenWeights, find_calls, weighted_rows
from flyweight.errors import OptionError
from flyweight.tasks.encode import encode
from tiny import tiny_tokenizer


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


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ("the pump is hot", []),
        ("ok <tool_call>{1}</tool_call> done", ["<tool_call>{1}</tool_call>"]),
        ("<tool_call>a</tool_call> <tool_call>b</tool_call>",
         ["<tool_call>a</tool_call>", "<tool_call>b</tool_call>"]),
        ('[TOOL_CALLS][{"name": "stop"}]', ['[TOOL_CALLS][{"name": "stop"}]']),
        ('<|tool_call|>{"name":"stop"}', ['<|tool_call|>{"name":"stop"}']),
        ("now\n<tool_call>\nnever ended", ["<tool_call>\nnever ended"]),
    ],
)  # fmt: skip
def test_tool_calls_are_found_by_their_marks(answer: str, calls: list[str]) -> None:
    tokenizer = tiny_tokenizer()
    example = encode(tokenizer, [{"role": "user", "content": "stop it"}], answer)
    spans = find_calls(tokenizer, answer, example.prompt_length)
    said = [tokenizer.decode(example.ids[first:end]) for first, end in spans]
    assert [each.strip() for each in said] == calls
    [row] = weighted_rows([example], TokenWeights(0.5, 1.0, 3.0), [spans])
    inside = sum(end - first for first, end in spans)
    assert (row["weights"] == 3).sum() == inside
    assert (row["weights"] == 0.5).sum() == row["prompt_length"] == example.prompt_length


def test_rows_without_tool_calls_weigh_prompt_and_answer() -> None:
    example = encode(tiny_tokenizer(), [{"role": "user", "content": "stop it"}], "now")
    [row] = weighted_rows([example], TokenWeights())
    assert row["input_ids"] is example.ids
    assert (row["weights"][: example.prompt_length] == np.float32(0.2)).all()
    assert (row["weights"][example.prompt_length :] == 1).all()


def test_a_tokenizer_without_places_is_refused() -> None:
    class Slow:
        is_fast = False

    assert find_calls(Slow(), "no call", 3) == []
    with pytest.raises(OptionError, match="--tool-weight"):
        find_calls(Slow(), "<tool_call>a</tool_call>", 3)
