"""Slices of likelihood against plain sums of transformers' own loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flyweight.make.bench import Result, bits_per_byte
from flyweight.make.data import Split
from flyweight.make.judge import Trial, shown_answers, slice_scores
from flyweight.tasks.encode import Example
from flyweight.tasks.items import Item

Build = Callable[..., Any]
SLICES = [("short",), ("long",), ("long", "odd"), (), ("odd",)]
NONE: Any = None


@pytest.fixture(scope="module")
def split() -> Split:
    """Twenty items whose answers differ in bytes and in tokens; some lie in two slices."""
    generator = np.random.default_rng(3)
    items, examples = [], []
    for number in range(20):
        slices = SLICES[number % 5]
        answer = "ö" * (40 + number if "long" in slices else 1 + number % 4)
        items.append(Item(({"role": "user", "content": "?"},), answer, slices, f"{number // 2}"))
        ids = generator.integers(3, 80, 5 + len(answer) // 3)
        examples.append(Example(ids.astype(np.int32), 3))
    return Split(tuple(items), tuple(examples))


def plain_bits(model: Any, split: Split) -> np.ndarray:
    """Bits of each answer, by transformers."""
    bits = []
    for prompt, answer in split.pairs:
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.inference_mode():
            loss = model(torch.tensor([prompt + answer]), labels=labels).loss
        bits.append(loss.item() * len(answer) / math.log(2))
    return np.array(bits)


def test_a_slice_scores_its_own_bits_over_its_own_bytes(small_model: Build, split: Split) -> None:
    teacher, student = (small_model(seed=seed, num_hidden_layers=1) for seed in (1, 2))
    results = [Result(bits_per_byte(each, split), [], NONE) for each in (teacher, student)]
    found = slice_scores(Trial(NONE, 1, *results), split, lower_is_better=True, bar=0.95)
    assert [part.name for part in found] == ["long", "odd", "short"]
    size = np.array([len((item.answer or "").encode()) for item in split.items])
    for part in found:
        inside = np.array([part.name in item.slices for item in split.items])
        bits = {name: plain_bits(model, split)[inside].sum() for name, model in
                (("teacher", teacher), ("student", student))}  # fmt: skip
        assert part.n == inside.sum()
        assert part.teacher == pytest.approx(bits["teacher"] / size[inside].sum(), rel=1e-4)
        assert part.student == pytest.approx(bits["student"] / size[inside].sum(), rel=1e-4)
        assert part.ratio == pytest.approx(bits["teacher"] / bits["student"], rel=1e-4)
    whole = plain_bits(teacher, split).sum() / size.sum()
    assert results[0].scores.mean() == pytest.approx(whole, rel=1e-4)


def test_a_slice_of_answers_scores_its_mean(split: Split) -> None:
    right = np.arange(20) % 3 > 0
    results = [Result(np.ones(20), [], NONE), Result(right.astype(float), [], NONE)]
    found = slice_scores(Trial(NONE, 1, *results), split, lower_is_better=False, bar=0.95)
    for part in found:
        inside = [part.name in item.slices for item in split.items]
        assert (part.teacher, part.student) == (1, pytest.approx(right[inside].mean()))


def test_answers_that_were_lost_are_shown_wherever_they_stand() -> None:
    """Thirty answers in other words, of which the last alone is lost."""
    size = 30
    items = [Item(({"role": "user", "content": str(i)},), "yes", group=str(i)) for i in range(size)]
    split = Split(tuple(items), ())
    kept = np.ones(size)
    lost = np.where(np.arange(size) == size - 1, 0.0, 1.0)
    mine, theirs = (
        Result(scores, [f"{word} {i}" for i in range(size)], NONE)
        for scores, word in ((lost, "mine"), (kept, "theirs"))
    )
    shown = shown_answers(Trial(NONE, 1, theirs, mine), split)
    assert shown[0].prompt == str(size - 1)
    assert (shown[0].student_score, shown[0].teacher_score) == (0.0, 1.0)
