"""Objectives on a model's own batches, against transformers and full logits in double precision."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flyweight.distill import losses
from flyweight.distill.chunked import chunked_loss
from flyweight.distill.losses import Distillation, cross_entropy
from flyweight.distill.trainer import Row, collate

Build = Callable[..., Any]
TOKENS = 80
BETAS = [0.0, 0.4, 1.0]


@pytest.fixture(scope="module")
def student(small_model: Build) -> Any:
    return small_model(tied=True, num_hidden_layers=2, hidden_size=32)


@pytest.fixture(scope="module")
def teacher(small_model: Build) -> Any:
    return small_model(tied=True, seed=1, num_hidden_layers=2)


def rows_of(lengths: list[int], prompt: int = 2, seed: int = 0) -> list[Row]:
    """Random rows, whose first `prompt` tokens carry no weight and the others various ones."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for length in lengths:
        weights = torch.linspace(0.4, 1.3, length)
        weights[:prompt] = 0
        rows.append({
            "input_ids": torch.randint(3, TOKENS, (length,), generator=generator),
            "weights": weights,
        })  # fmt: skip
    return rows


@torch.no_grad()
def recorded(teacher: Any, rows: list[Row], k: int = TOKENS) -> list[Row]:
    """The rows with the teacher's top k, in single precision, by transformers and torch alone."""
    said = []
    for row in rows:
        log_p = teacher(row["input_ids"][None]).logits[0, :-1].log_softmax(-1)
        top = log_p[row["weights"][1:] != 0].topk(k, dim=-1)
        said.append(row | {"top": top.values, "indices": top.indices})
    return said


def merged(log_p: Tensor, order: Tensor, k: int) -> Tensor:
    """Log-probabilities [N, k + 1] where all tokens after the first k of `order` are one event."""
    log_p = log_p.gather(-1, order)
    if k == log_p.shape[-1]:
        return log_p
    return torch.cat([log_p[:, :k], log_p[:, k:].logsumexp(-1, keepdim=True)], -1)


def divergence(log_q: Tensor, log_p: Tensor, beta: float) -> Tensor:
    """By torch's own kl_div [N]."""

    def kl(one: Tensor, other: Tensor) -> Tensor:
        return F.kl_div(other, one, reduction="none", log_target=True).sum(-1)

    if beta in (0, 1):
        return kl(log_p, log_q) if beta == 0 else kl(log_q, log_p)
    mixed = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return beta * kl(log_p, mixed) + (1 - beta) * kl(log_q, mixed)


def by_definition(
    model: Any, teacher: Any, batch: dict[str, Tensor], kl: float, beta: float, k: int = TOKENS
) -> Tensor:
    """The weighted mean of the blend, from all logits of both models, in their precision."""
    ids, weights = batch["input_ids"], batch["weights"][:, 1:]
    wanted = weights != 0
    log_q, log_p = (each(ids).logits[:, :-1][wanted].log_softmax(-1) for each in (model, teacher))
    order = log_p.argsort(-1, descending=True)
    apart = divergence(merged(log_q, order, k), merged(log_p, order, k), beta)
    said = F.nll_loss(log_q, ids[:, 1:][wanted], reduction="none")
    shares = weights[wanted].double() / weights.sum()
    return ((kl * apart + (1 - kl) * said) * shares).sum()


def agree(found: Tensor, model: Any, wanted: Tensor, exact: Any) -> None:
    """Loss and every gradient are within 1e-4 of what the model in double precision says."""
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)
    mine, theirs = (
        torch.autograd.grad(loss, list(each.parameters()), retain_graph=each is exact)
        for loss, each in ((found, model), (wanted, exact))
    )
    for one, other in zip(mine, theirs, strict=True):
        assert (one.double() - other).norm() <= 1e-4 * other.norm()


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kl", [1.0, 0.7])
@pytest.mark.parametrize("k", [TOKENS, 12])
def test_against_a_record(
    student: Any, teacher: Any, beta: float, kl: float, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches as the trainer makes them; what is outside the record counts as one token."""
    batch = collate(recorded(teacher, rows_of([5, 9, 12]), k))
    exact, said = copy.deepcopy(student).double(), copy.deepcopy(teacher).double()
    wanted = by_definition(exact, said, batch, kl, beta, k)
    agree(Distillation(kl, beta)(student, batch), student, wanted, exact)
    monkeypatch.setattr(losses, "chunked_loss", partial(chunked_loss, budget=4 * TOKENS * 5))
    agree(Distillation(kl, beta)(student, batch), student, wanted, exact)


def test_a_recorded_tail_is_taken_as_it_is(student: Any, teacher: Any) -> None:
    rows = recorded(teacher, rows_of([5, 9]), 12)
    told = [row | {"tail": torch.log1p(-row["top"].double().exp().sum(-1)).float()} for row in rows]
    found, wanted = (Distillation(0.7)(student, collate(each)).item() for each in (told, rows))
    assert found == pytest.approx(wanted, rel=1e-5)
    other = [row | {"tail": row["tail"] - 1} for row in told]
    assert abs(Distillation(0.7)(student, collate(other)).item() - wanted) > 1e-3


def test_the_right_answers(student: Any, teacher: Any) -> None:
    batch = collate(rows_of([5, 9, 12]))
    exact, said = copy.deepcopy(student).double(), copy.deepcopy(teacher).double()
    wanted = by_definition(exact, said, batch, 0.0, 0.0)
    agree(cross_entropy(student, batch), student, wanted, exact)


def test_cross_entropy_is_transformers_own_loss(student: Any) -> None:
    rows = rows_of([5, 9, 12])
    for row in rows:
        row["weights"] = (row["weights"] > 0).float()
    batch = collate(rows)
    labels = batch["input_ids"].masked_fill(batch["weights"] == 0, -100)
    theirs = student(batch["input_ids"], labels=labels).loss
    assert cross_entropy(student, batch).item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("beta", BETAS)
def test_a_record_of_itself_teaches_nothing(student: Any, beta: float) -> None:
    """To the rounding of its logarithms; against a live teacher to nothing (test_objectives.py)."""
    batch = collate(recorded(student, rows_of([5, 9])))
    loss = Distillation(1.0, beta)(student, batch)
    assert abs(loss.item()) < 1e-6
    gradients = torch.autograd.grad(loss, list(student.parameters()))
    assert max(each.abs().max().item() for each in gradients) < 1e-5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, TOKENS), st.sampled_from(BETAS))
def test_a_record_bounds_the_divergence_from_below(
    student: Any, teacher: Any, seed: int, k: int, beta: float
) -> None:
    """And padding, the order of rows and how they are batched change nothing."""
    rows = recorded(teacher, rows_of([6, 4, 9], seed=seed), k)
    objective = Distillation(1.0, beta)
    with torch.no_grad():
        found = objective(student, collate(rows)).item()
        whole = by_definition(student, teacher, collate(rows), 1.0, beta).item()
        turned = objective(student, collate(rows[::-1])).item()
        total = torch.stack([row["weights"][1:].sum() for row in rows]).sum()
        parts = sum(objective(student, collate([row]) | {"total": total}).item() for row in rows)
    assert -1e-6 <= found <= whole * (1 + 1e-4) + 1e-6
    assert turned == pytest.approx(found, rel=1e-4, abs=1e-6)
    assert parts == pytest.approx(found, rel=1e-4, abs=1e-6)


def test_no_grad_gives_the_same_value(student: Any, teacher: Any) -> None:
    batch = collate(recorded(teacher, rows_of([5, 9]), 12))
    with torch.inference_mode():
        found = Distillation(0.7)(student, batch).item()
    assert found == Distillation(0.7)(student, batch).item()


@pytest.mark.parametrize(("kl", "beta"), [(1.5, 0.0), (0.7, -0.1)])
def test_shares_have_limits(student: Any, teacher: Any, kl: float, beta: float) -> None:
    batch = collate(recorded(teacher, rows_of([5]), 12))
    with pytest.raises(ValueError, match="from 0 to 1"):
        Distillation(kl, beta)(student, batch)
