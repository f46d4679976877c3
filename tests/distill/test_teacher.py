"""What is recorded of the teacher against its own full log-probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flyweight.distill import teacher, trainer
from flyweight.distill.teacher import answer_rows, record_teacher
from flyweight.tasks.encode import Example

Build = Callable[..., Any]


def examples() -> list[Example]:
    generator = np.random.default_rng(2)
    found = []
    for number in range(11):
        ids = generator.integers(3, 80, 4 + number * 3 % 13).astype(np.int32)
        found.append(Example(ids, prompt_length=1 + number % 3))
    return found


def test_rows_weigh_answers_and_prompts() -> None:
    example = Example(np.arange(5, dtype=np.int32), prompt_length=3)
    [row] = answer_rows([example], prompt_weight=0.0)
    assert row["input_ids"].tolist() == [0, 1, 2, 3, 4]
    assert row["weights"].tolist() == [0, 0, 0, 1, 1]
    [row] = answer_rows([example], prompt_weight=0.5)
    assert row["weights"].tolist() == [0.5, 0.5, 0.5, 1, 1]


@pytest.mark.parametrize("batch_size", [1, 4, 32])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-5)], ids=str
)
@torch.inference_mode()
def test_every_recorded_value_is_the_models_own(
    small_model: Build,
    batch_size: int,
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To packed.py's steps where the processor computes in single, else to bfloat16's as well."""
    monkeypatch.setattr(trainer, "fast_dtype", lambda device: dtype)
    model = small_model(seed=5, initializer_range=0.1)
    rows = answer_rows(examples(), 0.0)
    monkeypatch.setattr(teacher, "BATCH", batch_size)
    recorded = record_teacher(model, rows, top_k=20)
    assert [row["input_ids"].tolist() for row in recorded] == [
        row["input_ids"].tolist() for row in rows
    ]
    for example, row in zip(examples(), recorded, strict=True):
        full = model(torch.tensor(example.ids[None]).long()).logits[0].double().log_softmax(-1)
        wanted = full[example.prompt_length - 1 : -1]  # position t predicts token t + 1
        values, places = row["top"].double(), row["indices"].long()
        assert values.shape == places.shape == (len(example.answer), 20)
        likeliest = wanted.topk(20, dim=-1).values
        step = (likeliest[:, :1] - likeliest[:, -1:]) / 255
        for own in (wanted.gather(-1, places), likeliest):
            assert ((values - own).abs() <= step + tolerance * (own.abs() + 1 / 8)).all()


def test_a_small_vocabulary_is_recorded_whole(small_model: Build) -> None:
    recorded = record_teacher(small_model(), answer_rows(examples(), 0.0), top_k=1000)
    for row in recorded:
        assert row["top"].shape[1] == 80
        assert all(sorted(line) == list(range(80)) for line in row["indices"].tolist())
        assert row["top"].float().exp().sum(-1).sub(1).abs().max() < 5e-3
