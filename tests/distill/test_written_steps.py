"""Steps in which the student writes, among steps on packed rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flyweight.distill import live, parts, trainer
from flyweight.distill.live import LiveDistillation, OnPolicy
from flyweight.distill.objectives import Aim
from flyweight.distill.order import Batches
from flyweight.distill.packing import PackedRow, size
from flyweight.distill.plan import Plan, planned
from flyweight.distill.trainer import Row, Schedule, collate, train
from flyweight.errors import OptionError

Build = Callable[..., Any]
PLAN = Plan(length=24, batch_size=2, steps=6, share=0.5, written=2, asked=5)
LONGEST = 4  # tokens that the student writes


@pytest.fixture
def student(small_model: Build) -> Any:
    """It writes on to the end, so that the parts of a step have answers of one length."""
    model = small_model(num_hidden_layers=2, hidden_size=32)
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    return model


@pytest.fixture
def teacher(small_model: Build) -> Any:
    return small_model(seed=1, num_hidden_layers=2)


def rows(count: int, low: int, high: int, prompt: int, seed: int) -> list[Row]:
    """Items whose prompt has a small weight, or texts where there is none."""
    generator, made = np.random.default_rng(seed), []
    for length in generator.integers(low, high + 1, count):
        weights = np.ones(length, dtype=np.float32)
        weights[:prompt] = 0.2
        made.append({"input_ids": generator.integers(3, 80, length), "weights": weights})
        if prompt:
            made[-1]["prompt_length"] = prompt
    return made


ITEMS = rows(17, 6, 12, prompt=4, seed=0)
TEXTS = rows(9, 5, 20, prompt=0, seed=1)


def steps_of(batches: Batches) -> list[list[Any]]:
    return [[batches.rows[place] for place in step] for step in batches.places]


def is_packed(step: Sequence[Any]) -> bool:
    kinds = {isinstance(row, PackedRow) for row in step}
    assert len(kinds) == 1  # never both in one step
    return kinds.pop()


def apart(student: Any, teacher: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """KL(teacher || student) and cross-entropy of each token but the first, from all logits."""
    q, p = (each(ids[None]).logits[0, :-1].double().log_softmax(-1) for each in (student, teacher))
    return (p.exp() * (p - q)).sum(-1), -q.gather(-1, ids[1:, None])[:, 0]


def by_definition(student: Any, teacher: Any, step: Sequence[Any], total: float) -> Tensor:
    """The loss of a step, from one document at a time, written token by token."""
    if is_packed(step):
        found = []
        for part in (part for row in step for part in row.parts):
            divergence, nats = apart(student, teacher, torch.as_tensor(part["input_ids"]))
            weights = torch.as_tensor(part["weights"])[1:]
            found.append(((0.7 * divergence + 0.3 * nats) * weights).sum())
        return torch.stack(found).sum() / total
    found = []
    for row in step:
        ids = torch.as_tensor(row["input_ids"])[: row["prompt_length"]]
        for _ in range(LONGEST):
            with torch.no_grad():
                ids = torch.cat([ids, student(ids[None]).logits[0, -1].argmax()[None]])
        found.append(apart(student, teacher, ids)[0][-LONGEST:])
    return torch.cat(found).mean()


def total_of(steps: Sequence[Sequence[Any]]) -> float:
    """What the weights of a step on packed rows sum to on average, document by document."""
    packed = [step for step in steps if is_packed(step)]
    documents = [part for step in packed for row in step for part in row.parts]
    return sum(float(part["weights"][1:].sum()) for part in documents) / len(packed)


def objective(teacher: Any) -> OnPolicy:
    return OnPolicy(LiveDistillation(teacher, Aim().blend), 1.0, LONGEST)


@pytest.mark.parametrize("at_once", [4096, 30], ids=["whole", "in parts"])
def test_the_loss_of_each_step_is_the_definition_of_its_kind(
    at_once: int, student: Any, teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the trainer, at a rate at which nothing moves."""
    monkeypatch.setattr(live, "HEAT", 0.0)
    monkeypatch.setattr(trainer, "fast_dtype", lambda *_: torch.float32)
    monkeypatch.setitem(parts.AT_ONCE, "cpu", at_once)
    batches = PLAN.batches(ITEMS, [TEXTS], [student, teacher], seed=0)
    steps = steps_of(batches)
    assert [is_packed(step) for step in steps].count(False) == PLAN.written
    with torch.no_grad():
        total = total_of(steps)
        wanted = [by_definition(student, teacher, step, total).item() for step in steps]
    schedule = Schedule(PLAN.steps, learning_rate=1e-12)
    found = train(student, batches, objective(teacher), schedule, "Training").losses
    assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("at_once", [4096, 30], ids=["whole", "in parts"])
def test_so_is_its_gradient(
    at_once: int, student: Any, teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "HEAT", 0.0)
    batches = PLAN.batches(ITEMS, [TEXTS], [student, teacher], seed=0)
    steps, weights = steps_of(batches), list(student.parameters())
    for packed in (True, False):
        step = next(step for step in steps if is_packed(step) == packed)
        wanted = by_definition(student, teacher, step, batches.total)
        batch = collate(step) | {"total": torch.tensor(batches.total)}
        losses = [objective(teacher)(student, part) for part in parts.parts(batch, at_once)]
        assert len(losses) > 1 or at_once > 30
        found = torch.autograd.grad(torch.stack(losses).sum(), weights)
        for ours, theirs in zip(found, torch.autograd.grad(wanted, weights), strict=True):
            assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-6


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "written"])
def test_stopping_before_a_step_of_either_kind_changes_no_bit(
    packed: bool, student: Any, teacher: Any, tmp_path: Path
) -> None:
    """What is written is drawn, before the stop and after it."""
    made = PLAN.batches(ITEMS, [TEXTS], [student, teacher], seed=2)
    kinds = [is_packed(step) for step in steps_of(made)]
    stop = kinds.index(packed, kinds.index(False) + 1)
    assert False in kinds[stop:]

    def run(seed: int, **how: Any) -> tuple[list[float], dict[str, Tensor]]:
        torch.manual_seed(seed)  # what came before must not matter
        model = copy.deepcopy(student)
        batches = PLAN.batches(ITEMS, [TEXTS], [model, teacher], seed=2)
        schedule = Schedule(PLAN.steps, learning_rate=5e-3)
        losses = train(model, batches, objective(teacher), schedule, "Training", **how).losses
        return losses, model.state_dict()

    whole, straight = run(1)
    run(2, keep=tmp_path, until=stop)
    ended, again = run(3, keep=tmp_path)
    assert ended == whole
    assert all(torch.equal(straight[name], again[name]) for name in straight)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_the_student_is_asked_as_without_corpora_and_reads_as_in_fewer_steps(share: float) -> None:
    made: dict[str, Any] = {"batch_size": 8, "share": 0.5, "row_length": None, "context": 512}
    plan = planned(ITEMS, steps=40, on_policy=share, **made)
    written = round(share * 40)
    less = planned(ITEMS, steps=40 - written, **made)
    assert plan.tokens == less.tokens
    assert (plan.length, plan.batch_size) == (less.length, less.batch_size)
    batches = plan.batches(ITEMS, [TEXTS], [], seed=2)
    steps = steps_of(batches)
    kinds = [is_packed(step) for step in steps]
    assert kinds.count(False) == written
    assert sorted(kinds) != kinds  # in random order
    alone = steps_of(Batches.of(ITEMS, written, 8, seed=2))
    asked = [step for step in steps if not is_packed(step)]
    assert [[*map(id, step)] for step in asked] == [[*map(id, step)] for step in alone]
    read = less.batches(ITEMS, [TEXTS], [], seed=2)
    packed = [step for step in steps if is_packed(step)]
    assert [ids_of(step) for step in packed] == [ids_of(step) for step in steps_of(read)]
    assert batches.total == read.total
    if written * 8 >= len(ITEMS):
        first = [id(row) for step in asked for row in step][: len(ITEMS)]
        assert len(set(first)) == len(ITEMS)


def ids_of(step: Sequence[Any]) -> list[list[int]]:
    return [row["input_ids"].tolist() for row in step]


def test_a_packed_row_is_learned_as_given_and_draws_nothing(student: Any, teacher: Any) -> None:
    batches = replace(PLAN, written=0).batches(ITEMS, [TEXTS], [student], seed=0)
    batch = collate(steps_of(batches)[0])
    before = torch.get_rng_state()
    policy = objective(teacher)
    assert policy(student, batch).item() == policy.judge(student, batch).item()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("share", "steps", "written"), [(0.01, 10, 0), (0.99, 10, 10), (1, 3, 3), (0.6, 1, 1)]
)
def test_a_share_that_leaves_nothing_of_either_kind_is_refused(
    share: float, steps: int, written: int
) -> None:
    said = rf"--on-policy is {share}: of {steps} .* {written}, .*or more --steps, or leave --corpus"
    with pytest.raises(OptionError, match=said):
        planned(
            ITEMS, steps=steps, batch_size=8, share=0.5, row_length=None, context=512,
            on_policy=share,
        )  # fmt: skip


def test_a_model_that_keeps_no_documents_apart_is_asked_as_much(
    small_model: Build, teacher: Any
) -> None:
    """Each document then has a row, and is still no prompt."""
    scaled = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 8,
              "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}  # fmt: skip
    model = small_model(num_hidden_layers=1, rope_parameters=scaled)
    steps = steps_of(PLAN.batches(ITEMS, [TEXTS], [model, teacher], seed=0))
    asked = [step for step in steps if not is_packed(step)]
    assert [len(step) for step in asked] == [PLAN.asked] * PLAN.written
    read = [step for step in steps if is_packed(step)]
    assert all(len(row.parts) == 1 for step in read for row in step)
    tokens = np.mean([sum(map(size, step)) for step in read])
    assert tokens == pytest.approx(PLAN.length * PLAN.batch_size, rel=0.3)
