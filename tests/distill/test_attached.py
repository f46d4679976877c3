"""What stands beside a student while it trains, and is as it was afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import zoo
from flyweight.distill.attached import LEARNED, attached, multiplied_in
from flyweight.distill.head import head_of

Build = Callable[..., Any]
CPU = torch.device("cpu")


def said(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and head, as a live teacher's are taken."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        hidden = model.base_model(zoo.ids(model), use_cache=False).last_hidden_state
    return hidden, head_of(model).weight.bfloat16()


@pytest.mark.parametrize("name", zoo.DECODERS)
def test_weights_in_the_type_of_the_products_change_no_bit(name: str) -> None:
    model = zoo.build(name)
    before, weights = said(model), dict(model.named_parameters())
    embedding = model.get_input_embeddings().weight
    with multiplied_in(torch.bfloat16, model):
        inside = said(model)
        assert model.get_output_embeddings().weight.dtype == torch.bfloat16
        assert model.get_input_embeddings().weight is embedding
        assert embedding.dtype == torch.float32
    assert all(torch.equal(*pair) for pair in zip(before, inside, strict=True))
    after = dict(model.named_parameters())
    assert after.keys() == weights.keys()
    assert all(after[each] is weights[each] for each in weights)


@pytest.mark.parametrize("products", [torch.bfloat16, torch.float32])
def test_a_teacher_in_half_precision_is_multiplied_in_either(
    products: torch.dtype, small_model: Build
) -> None:
    """In fp32 as on a processor without bf16: there is no autocast that would mend its types."""
    model = small_model().to(torch.bfloat16)
    exact = copy.deepcopy(model).float()
    within = torch.autocast("cpu", products, enabled=products != torch.float32)
    with torch.no_grad(), multiplied_in(products, model), within:
        found = model.base_model(zoo.ids(model), use_cache=False).last_hidden_state
    with torch.no_grad():
        wanted = exact.base_model(zoo.ids(exact), use_cache=False).last_hidden_state
    assert (found.float() - wanted).norm() < 0.1 * wanted.norm()


class Objective:
    """One that brings a teacher and a matrix."""

    def __init__(self, teacher: Any) -> None:
        self.teacher, self.learned = teacher, torch.nn.ModuleList([torch.nn.Linear(2, 2)])


def _fail_inside(student: Any, objective: Objective) -> None:
    with attached(student, objective, CPU, torch.bfloat16, plain_attention=True):
        assert any(name.startswith(LEARNED) for name, _ in student.named_parameters())
        assert not objective.teacher.training
        for each in (student, objective.teacher):
            assert each.config._attn_implementation == "eager"
        raise RuntimeError("stopped")


def test_all_is_as_it_was_even_after_an_error(small_model: Build) -> None:
    student, teacher = small_model(), small_model(seed=1)
    objective = Objective(teacher.train())
    before = [{k: v.clone() for k, v in each.state_dict().items()} for each in (student, teacher)]
    attention = student.config._attn_implementation
    with pytest.raises(RuntimeError, match="stopped"):
        _fail_inside(student, objective)
    for each, state in zip((student, teacher), before, strict=True):
        assert each.config._attn_implementation == attention
        assert each.state_dict().keys() == state.keys()
        assert all(torch.equal(each.state_dict()[name], state[name]) for name in state)


def test_an_objective_that_brings_nothing_costs_nothing(small_model: Build) -> None:
    student = small_model()
    parameters = list(student.parameters())
    with attached(student, None, CPU, torch.bfloat16, plain_attention=False):
        assert all(a is b for a, b in zip(parameters, student.parameters(), strict=True))
