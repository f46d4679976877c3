"""Scoring known answers in one pass against transformers' own generation and loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flyweight.runtime.forced import Pair, answer_bits, greedy_matches

Build = Callable[..., Any]
WRITTEN = 7  # tokens


@pytest.fixture(scope="module")
def model(small_model: Build) -> Any:
    return small_model(tied=False, seed=11, num_hidden_layers=2)


@torch.inference_mode()
def greedy(model: Any, prompt: list[int], tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens
    )
    return made[0, len(prompt) :].tolist()


@pytest.fixture(scope="module")
def pairs(model: Any) -> list[Pair]:
    """Prompts with what the model writes itself, and with one token of it changed."""
    generator = np.random.default_rng(0)
    found: list[Pair] = []
    for number in range(12):
        prompt = generator.integers(3, 80, 1 + 3 * number % 17).tolist()
        written = greedy(model, prompt, 1 + number % WRITTEN)
        found.append((prompt, written))
        for place in {0, len(written) // 2, len(written) - 1}:
            wrong = list(written)
            wrong[place] = 3 + (wrong[place] + 1) % 70
            found.append((prompt, wrong))
    return found


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_matches_are_what_generation_writes(model: Any, pairs: list[Pair], batch_size: int) -> None:
    expected = [greedy(model, prompt, len(answer)) == answer for prompt, answer in pairs]
    assert 5 < sum(expected) < len(expected) - 5
    found = greedy_matches(model, pairs, batch_size)
    assert found.dtype == bool
    assert found.tolist() == expected


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_bits_are_transformers_loss(model: Any, pairs: list[Pair], batch_size: int) -> None:
    expected = []
    for prompt, answer in pairs:
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.inference_mode():
            loss = model(torch.tensor([prompt + answer]), labels=labels).loss
        expected.append(loss.item() * len(answer) / math.log(2))
    np.testing.assert_allclose(
        answer_bits(model, pairs, batch_size), expected, rtol=1e-4, atol=1e-4
    )
