"""A batch in parts: loss and gradient of the whole, at no more tokens than allowed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flyweight.distill import live
from flyweight.distill.divergences import Blend
from flyweight.distill.live import LiveDistillation, OnPolicy
from flyweight.distill.losses import Batch, Distillation, Objective, cross_entropy
from flyweight.distill.parts import AT_ONCE, at_once, parts
from flyweight.distill.teacher import record_teacher
from flyweight.distill.trainer import collate

Build = Callable[..., Any]
LENGTHS = (5, 12, 7, 12, 9, 3, 11)


@pytest.fixture
def student(small_model: Build) -> Any:
    return small_model(num_hidden_layers=2, hidden_size=32)


@pytest.fixture
def teacher(small_model: Build) -> Any:
    return small_model(seed=1, num_hidden_layers=2)


@pytest.fixture
def batch(teacher: Any) -> Batch:
    """Rows of unlike length with a prompt of two tokens, and what the teacher says of them."""
    generator = np.random.default_rng(0)
    rows = [
        {
            "input_ids": generator.integers(3, 80, length),
            "weights": np.array([0.2, 0.2, *[1.0] * (length - 2)], dtype=np.float32),
            "prompt_length": 2,
        }
        for length in LENGTHS
    ]
    return collate(record_teacher(teacher, rows, 8)) | {"total": torch.tensor(60.0)}


def objectives(teacher: Any) -> dict[str, Objective]:
    live = LiveDistillation(teacher, Blend(0.7))
    return {
        "answers": cross_entropy,
        "recorded": Distillation(0.7),
        "live": live,
    }


def learned(model: Any, objective: Objective, batches: list[Batch]) -> tuple[float, Tensor]:
    """The loss of all batches, and its gradient as one vector."""
    model.zero_grad()
    losses = [objective(model, each) for each in batches]
    torch.stack(losses).sum().backward()
    gradients = [each.grad.flatten() for each in model.parameters() if each.grad is not None]
    return sum(each.item() for each in losses), torch.cat(gradients)


@pytest.mark.parametrize("name", ["answers", "recorded", "live"])
@pytest.mark.parametrize("most", [1, 40, 64])
def test_parts_add_up_to_the_whole(
    name: str, most: int, student: Any, teacher: Any, batch: Batch
) -> None:
    objective = objectives(teacher)[name]
    split = list(parts(batch, most))
    assert len(split) > 1
    whole, gradient = learned(student, objective, [batch])
    total, added = learned(student, objective, split)
    assert total == pytest.approx(whole, rel=1e-5)
    assert (added - gradient).norm() <= 1e-4 * gradient.norm()


def test_without_a_total_parts_share_that_of_the_batch(student: Any, batch: Batch) -> None:
    del batch["total"]
    whole, gradient = learned(student, cross_entropy, [batch])
    total, added = learned(student, cross_entropy, list(parts(batch, 40)))
    assert total == pytest.approx(whole, rel=1e-5)
    assert (added - gradient).norm() <= 1e-4 * gradient.norm()


def test_every_row_comes_once_and_no_part_is_too_long(batch: Batch) -> None:
    split = list(parts(batch, 40))
    assert torch.equal(torch.cat([each["input_ids"] for each in split]), batch["input_ids"])
    assert torch.equal(torch.cat([each["top"] for each in split]), batch["top"])
    assert all(each["input_ids"].numel() <= 40 for each in split)
    assert sum(float(each["share"]) for each in split) == pytest.approx(1)


def test_a_small_batch_is_left_whole(batch: Batch) -> None:
    (only,) = parts(batch, batch["input_ids"].numel())
    assert only is batch


def test_what_the_student_writes_weighs_as_its_rows_do(
    student: Any, teacher: Any, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written greedily, all answers are of one length: the parts' mean is the whole's."""
    student.generation_config.eos_token_id = None
    student.config.eos_token_id = None
    monkeypatch.setattr(live, "HEAT", 0.0)
    policy = OnPolicy(LiveDistillation(teacher, Blend(0.7)), share=1.0, longest=4)
    whole, gradient = learned(student, policy, [batch])
    total, added = learned(student, policy, list(parts(batch, 40)))
    assert total == pytest.approx(whole, rel=1e-4)
    assert (added - gradient).norm() <= 1e-3 * gradient.norm()


@pytest.mark.parametrize(
    ("gigabytes", "most"), [(141, 2**14), (80, 2**14), (40, 2**13), (24, 4915), (2, 2**10)]
)
def test_a_smaller_gpu_takes_fewer_tokens(
    gigabytes: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = SimpleNamespace(total_memory=gigabytes * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: told)
    assert at_once(torch.device("cuda")) == most
    assert at_once(torch.device("cpu")) == AT_ONCE["cpu"]
