"""Losses against torch's and transformers' own, in double precision where it matters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flyweight.distill.losses import (
    Distillation,
    cross_entropy,
    forward_kl,
    log1mexp,
    mixed_loss,
    wanted_logits,
)

Build = Callable[..., Any]
POSITIONS, VOCABULARY = 7, 40


def drawn(seed: int, spread: float, other_spread: float | None = None) -> tuple[Tensor, Tensor]:
    """Logits [N, V] in double precision of a student and of a teacher, however sharp."""
    generator = torch.Generator().manual_seed(seed)
    size = (POSITIONS, VOCABULARY)
    student = torch.randn(size, generator=generator, dtype=torch.float64) * spread
    teacher = torch.randn(size, generator=generator, dtype=torch.float64)
    return student, teacher * (spread if other_spread is None else other_spread)


def top_of(teacher: Tensor, k: int) -> tuple[Tensor, Tensor]:
    top = teacher.log_softmax(-1).topk(k, dim=-1)
    return top.values, top.indices


def full_kl(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)


def lumped_kl(student: Tensor, teacher: Tensor, k: int) -> Tensor:
    """KL between the two after everything outside the teacher's top k has become one token."""
    order = teacher.argsort(-1, descending=True)
    merged = []
    for logits in (student, teacher):
        sorted_logits = logits.log_softmax(-1).gather(-1, order)
        tail = sorted_logits[:, k:].logsumexp(-1, keepdim=True)
        merged.append(torch.cat([sorted_logits[:, :k], tail], -1))
    return F.kl_div(merged[0], merged[1], reduction="none", log_target=True).sum(-1)


@pytest.mark.parametrize("spread", [0.1, 1.0, 6.0])
def test_with_every_token_it_is_torchs_kl(spread: float) -> None:
    student, teacher = drawn(1, spread)
    reference = student.clone().requires_grad_()
    full_kl(reference, teacher).sum().backward()
    single = student.float().requires_grad_()
    found = forward_kl(single, *top_of(teacher.float(), VOCABULARY))
    found.sum().backward()
    assert reference.grad is not None
    assert single.grad is not None
    torch.testing.assert_close(found.double(), full_kl(student, teacher), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(single.grad.double(), reference.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spreads", [(0.5, 0.5), (3.0, 3.0), (8.0, 1.0), (1.0, 8.0), (12.0, 4.0)])
@pytest.mark.parametrize("k", [1, 5, VOCABULARY - 1])
def test_with_the_top_k_the_tail_counts_as_one_token(spreads: tuple[float, float], k: int) -> None:
    student, teacher = drawn(2, *spreads)
    reference = student.clone().requires_grad_()
    lumped_kl(reference, teacher, k).sum().backward()
    single = student.float().requires_grad_()
    found = forward_kl(single, *top_of(teacher.float(), k))
    found.sum().backward()
    assert reference.grad is not None
    assert single.grad is not None
    # the teacher's tail is known only as 1 - mass, in single precision
    torch.testing.assert_close(found.double(), lumped_kl(student, teacher, k), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(single.grad.double(), reference.grad, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(0.01, 15),
    st.floats(0.01, 15),
    st.integers(1, VOCABULARY),
)
def test_the_top_k_is_a_lower_bound_and_never_negative(
    seed: int, spread: float, other_spread: float, k: int
) -> None:
    student, teacher = drawn(seed, spread, other_spread)
    full = full_kl(student, teacher)
    found = forward_kl(student.float(), *top_of(teacher.float(), k)).double()
    assert (found >= -3e-6).all()
    assert (found <= full * (1 + 1e-4) + 3e-6).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 20), st.integers(1, VOCABULARY))
def test_it_is_zero_between_equals(seed: int, spread: float, k: int) -> None:
    same = drawn(seed, spread)[0].float().requires_grad_()
    found = forward_kl(same, *top_of(same.detach(), k))
    torch.testing.assert_close(found, torch.zeros(POSITIONS), rtol=0, atol=2e-5)
    found.sum().backward()
    assert same.grad is not None
    torch.testing.assert_close(same.grad, torch.zeros_like(same), rtol=0, atol=5e-6)


@pytest.mark.parametrize("spreads", [(0.5, 0.5), (3.0, 3.0), (8.0, 1.0), (1.0, 8.0)])
@pytest.mark.parametrize("k", [3, VOCABULARY])
@pytest.mark.parametrize("kl", [0.0, 0.3, 1.0])
def test_the_mixture_and_its_gradient_are_autograds(
    spreads: tuple[float, float], k: int, kl: float
) -> None:
    """Against torch's own two losses in double precision, each position at its own weight."""
    student, teacher = drawn(3, *spreads)
    targets = torch.arange(POSITIONS) * 5 % VOCABULARY
    weights = torch.linspace(0.1, 2.0, POSITIONS, dtype=torch.float64)
    reference = student.clone().requires_grad_()
    likelihood = F.cross_entropy(reference, targets, reduction="none")
    divergence = full_kl(reference, teacher)
    if k < VOCABULARY:
        divergence = lumped_kl(reference, teacher, k)
    wanted = kl * divergence + (1 - kl) * likelihood
    (wanted * weights).sum().backward()
    single = student.float().requires_grad_()
    found = mixed_loss(single, targets, *top_of(teacher.float(), k), kl)
    (found * weights.float()).sum().backward()
    assert reference.grad is not None
    assert single.grad is not None
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(single.grad.double(), reference.grad, rtol=1e-4, atol=1e-5)


def test_log1mexp_is_the_logarithm_of_what_is_left() -> None:
    for mass in (1e-6, 0.1, 0.5, 0.99):
        left = log1mexp(torch.tensor(math.log(mass), dtype=torch.float64)).item()
        assert left == pytest.approx(math.log(1 - mass), rel=1e-9)
    assert log1mexp(torch.tensor([0.0, 1e-3])).isfinite().all()


@pytest.fixture
def model(small_model: Build) -> Any:
    return small_model(tied=True, num_hidden_layers=2)


def batch_of(lengths: list[int], prompt: int = 2) -> dict[str, Tensor]:
    """Right-padded rows, whose first `prompt` tokens carry no weight."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 80, (len(lengths), max(lengths)), generator=generator)
    weights = torch.zeros(ids.shape)
    for row, length in enumerate(lengths):
        ids[row, length:] = 0
        weights[row, prompt:length] = 1
    return {"input_ids": ids, "weights": weights}


def test_cross_entropy_is_transformers_own_loss(model: Any) -> None:
    batch = batch_of([5, 9, 12])
    labels = batch["input_ids"].masked_fill(batch["weights"] == 0, -100)
    theirs = model(batch["input_ids"], labels=labels).loss
    ours = cross_entropy(model, batch)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    expected = torch.autograd.grad(theirs, model.model.norm.weight)[0]
    found = torch.autograd.grad(ours, model.model.norm.weight)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_weights_weigh(model: Any) -> None:
    batch = batch_of([4, 8])
    batch["weights"][0] *= 0.25
    each = [cross_entropy(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(2)]
    wanted = (0.25 * 2 * each[0] + 6 * each[1]) / (0.25 * 2 + 6)
    assert cross_entropy(model, batch).item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("objective", [cross_entropy, Distillation(0.3)])
def test_a_given_total_replaces_the_batchs_own(model: Any, objective: Any) -> None:
    """With the same total, short batches add up to the loss of the whole."""
    batch = batch_of([4, 8, 10])
    parts = [{k: v[i : i + 1] for k, v in batch.items()} for i in range(3)]
    for each in (batch, *parts):
        logits, _, _ = wanted_logits(model, each)
        each["top"], each["indices"] = top_of(logits.detach() * 0.5, 6)
    whole = objective(model, batch)
    total = batch["weights"].sum()
    added = sum(objective(model, part | {"total": total}) for part in parts)
    assert added.item() == pytest.approx(whole.item(), rel=1e-5)
    halved = objective(model, batch | {"total": total * 2})
    assert halved.item() == pytest.approx(whole.item() / 2, rel=1e-5)


@pytest.mark.parametrize("kl", [0.0, 0.3, 1.0])
def test_distillation_mixes_its_two_parts(model: Any, small_model: Build, kl: float) -> None:
    batch = batch_of([5, 9, 12])
    teacher = small_model(tied=True, seed=1, num_hidden_layers=2)
    wanted = batch["weights"][:, 1:] != 0
    batch["top"], batch["indices"] = top_of(teacher(batch["input_ids"]).logits[:, :-1][wanted], 80)
    student, teacher_logits = (
        each(batch["input_ids"]).logits[:, :-1][wanted] for each in (model, teacher)
    )
    divergence = full_kl(student.double(), teacher_logits.double()).mean().item()
    likelihood = cross_entropy(model, batch).item()
    found = Distillation(kl)(model, batch).item()
    assert found == pytest.approx(kl * divergence + (1 - kl) * likelihood, rel=1e-4)
