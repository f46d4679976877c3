"""Matched hidden states: the definition, its gradients, and matrices that learn but do not stay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import zoo
from flyweight.distill.divergences import Blend
from flyweight.distill.live import LiveDistillation, OnPolicy
from flyweight.distill.losses import cross_entropy
from flyweight.distill.matching import HiddenMatching, watched
from flyweight.errors import OptionError

Build = Callable[..., Any]


def batch_of(model: Any) -> dict[str, torch.Tensor]:
    ids = zoo.ids(model)
    weights = torch.linspace(0, 1, ids.numel()).view(ids.shape)
    weights[:, 12:] = 0
    return {"input_ids": ids, "weights": weights}


@pytest.mark.parametrize("name", zoo.DECODERS)
def test_hidden_states_of_every_family_are_transformers_own(name: str) -> None:
    """But after the last block, where transformers gives them after the final norm."""
    model = zoo.build(name)
    blocks = model.config.num_hidden_layers
    with torch.no_grad(), watched(model, range(blocks + 1)) as states:
        said = model(zoo.ids(model), output_hidden_states=True, use_cache=False).hidden_states
    for passed in range(blocks):
        assert torch.equal(states[passed], said[passed])
    normed = model.base_model.norm(states[blocks])
    torch.testing.assert_close(normed, said[blocks], rtol=1e-5, atol=1e-5)
    assert not any(block._forward_pre_hooks for block in model.base_model.layers)


def test_it_is_the_definition_and_its_gradient(small_model: Build) -> None:
    """In double precision, with states that transformers hands out, matrices drawn at random."""
    student, teacher = small_model(hidden_size=32), small_model(seed=1)
    batch, pairs = batch_of(student), [(0, 0), (1, 2), (3, 3)]
    objective = HiddenMatching(cross_entropy, student, teacher, pairs, weight=0.3)
    for each in objective.learned:
        torch.nn.init.normal_(each.weight, std=0.2)
    found = objective(student, batch)
    kept = [*student.parameters(), *objective.parameters()]
    ours = torch.autograd.grad(found, kept)

    student, teacher, objective = (
        copy.deepcopy(each).double() for each in (student, teacher, objective)
    )
    states = [
        each(batch["input_ids"], output_hidden_states=True, use_cache=False).hidden_states
        for each in (student, teacher)
    ]
    weights = batch["weights"][:, 1:].double()
    shares = weights / weights.sum()
    counts = weights != 0
    wanted = 0.3 * sum(
        (
            (each(states[0][mine][:, :-1]) - states[1][yours][:, :-1]).square().mean(-1) * shares
        ).sum()
        / states[1][yours][:, :-1][counts].square().mean()
        / len(pairs)
        for (mine, yours), each in zip(pairs, objective.learned, strict=True)
    ) + cross_entropy(student, batch)
    kept = [*student.parameters(), *objective.parameters()]
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)
    for one, other in zip(ours, torch.autograd.grad(wanted, kept), strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-7


def test_a_copy_is_exactly_at_no_distance(small_model: Build) -> None:
    teacher = small_model()
    student = copy.deepcopy(teacher)
    objective = HiddenMatching(
        LiveDistillation(teacher, Blend()), student, teacher, [(0, 0), (2, 2), (4, 4)]
    )
    assert objective(student, batch_of(student)).item() == 0


def test_a_guess_of_zero_is_at_distance_one(small_model: Build) -> None:
    student, teacher = small_model(hidden_size=32), small_model(seed=1)
    objective = HiddenMatching(cross_entropy, student, teacher, [(2, 2), (4, 4)])
    torch.nn.init.zeros_(objective.learned[0].weight)
    torch.nn.init.zeros_(objective.learned[1].weight)
    batch = batch_of(student)
    batch["weights"][batch["weights"] != 0] = 1
    with torch.no_grad():
        distance = objective(student, batch) - cross_entropy(student, batch)
    assert distance.item() == pytest.approx(1.0, rel=1e-4)


def test_the_matrices_alone_belong_to_it_and_learn(small_model: Build) -> None:
    student, teacher = small_model(hidden_size=32), small_model(seed=1)
    before = [name for name, _ in student.named_parameters()]
    objective = HiddenMatching(cross_entropy, student, teacher, [(2, 2), (4, 4)])
    assert [tuple(each.shape) for each in objective.parameters()] == [(64, 32)] * 2
    assert [name for name, _ in student.named_parameters()] == before
    optimizer = torch.optim.Adam([*student.parameters(), *objective.parameters()], 1e-2)
    first = last = None
    for _ in range(15):
        loss = objective(student, batch_of(student))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = first or loss.item(), loss.item()
    assert first is not None
    assert last is not None
    assert last < 0.7 * first


def test_what_cannot_be_matched_is_refused(small_model: Build) -> None:
    student, teacher = small_model(), small_model(num_hidden_layers=2)
    with pytest.raises(OptionError, match="the teacher 2"):
        HiddenMatching(cross_entropy, student, teacher, [(4, 3)])
    with pytest.raises(OptionError, match="on-policy"):
        HiddenMatching(OnPolicy(LiveDistillation(teacher, Blend())), student, teacher, [(1, 1)])
