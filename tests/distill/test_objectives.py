"""Objectives by name: what may be asked, and each of them through the trainer, killed or not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flyweight.distill import trainer
from flyweight.distill.live import LiveDistillation, OnPolicy
from flyweight.distill.losses import Distillation, cross_entropy
from flyweight.distill.matching import HiddenMatching, even_pairs
from flyweight.distill.objectives import LOSSES, Aim
from flyweight.distill.resume import newest_checkpoint
from flyweight.distill.trainer import Row, Schedule, train
from flyweight.errors import OptionError

Build = Callable[..., Any]
AIMS = {
    "forward KL": Aim(),
    "reverse KL": Aim("reverse-kl"),
    "JSD": Aim("jsd", beta=0.2, kl=1.0),
    "cross-entropy": Aim("cross-entropy"),
    "temperature": Aim(temperature=2.0),
    "matching": Aim(match_hidden=0.5),
    "answers and matching": Aim("cross-entropy", match_hidden=0.5),
    "on-policy": Aim("reverse-kl", on_policy=0.6),
}


@pytest.fixture(scope="module")
def teacher(small_model: Build) -> Any:
    return small_model(seed=1, num_hidden_layers=3)


@pytest.fixture(scope="module")
def student(small_model: Build) -> Any:
    return small_model(num_hidden_layers=2, hidden_size=32)


@pytest.fixture(scope="module")
def rows(teacher: Any) -> list[Row]:
    """With a record of the teacher, made by torch alone."""
    generator, made = torch.Generator().manual_seed(0), []
    for number in range(24):
        length = 6 + number % 5
        ids = torch.randint(3, 80, (length,), generator=generator)
        weights = np.ones(length, dtype=np.float32)
        weights[:3] = 0.2
        with torch.no_grad():
            top = teacher(ids[None]).logits[0, :-1].log_softmax(-1).topk(16, dim=-1)
        made.append({
            "input_ids": ids, "weights": weights, "prompt_length": 3,
            "top": top.values, "indices": top.indices,
        })  # fmt: skip
    return made


def objective_of(aim: Aim, student: Any, teacher: Any) -> Any:
    return aim.beside(student, teacher, 5) if aim.live else aim.without_teacher()


def run(model: Any, teacher: Any, rows: list[Row], aim: Aim, steps: int = 6, **how: Any) -> Any:
    """A training whose objective is made anew, as after a kill."""
    schedule = Schedule(steps, 4, learning_rate=5e-3)
    return train(model, rows, objective_of(aim, model, teacher), schedule, "Training", **how)


def state_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("name", AIMS)
def test_stopping_and_going_on_changes_no_bit(
    name: str, student: Any, teacher: Any, rows: list[Row], tmp_path: Path
) -> None:
    """And the student alone is changed: it has no new parts, the teacher is as it was."""
    before, attention = state_of(teacher), teacher.config._attn_implementation
    straight = copy.deepcopy(student)
    whole = run(straight, teacher, rows, AIMS[name])
    run(copy.deepcopy(student), teacher, rows, AIMS[name], keep=tmp_path, until=3)
    again = copy.deepcopy(student)
    torch.manual_seed(99)  # what came before must not matter
    ended = run(again, teacher, rows, AIMS[name], keep=tmp_path)
    assert same(state_of(straight), state_of(again))
    assert ended.losses == whole.losses
    read = copy.deepcopy(student)  # from the last checkpoint, which holds more than the student
    assert run(read, teacher, rows, AIMS[name], keep=tmp_path).losses == whole.losses
    assert same(state_of(read), state_of(again))
    assert state_of(student).keys() == state_of(again).keys()
    assert not same(state_of(student), state_of(again))
    assert same(before, state_of(teacher))
    assert teacher.config._attn_implementation == attention
    assert not teacher.training


def test_the_matrices_are_trained_and_kept_with_the_student(
    student: Any, teacher: Any, rows: list[Row], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    model = copy.deepcopy(student)
    objective = Aim(match_hidden=1.0).beside(model, teacher, 5)
    assert isinstance(objective, HiddenMatching)
    assert objective.pairs == ((1, 2), (2, 3))
    start = [each.detach().clone() for each in objective.parameters()]
    schedule = Schedule(6, 4, learning_rate=5e-3)
    train(model, rows, objective, schedule, "Training", keep=tmp_path, until=4)
    kept = newest_checkpoint(tmp_path)
    assert kept is not None
    saved = load_file(kept.path / "model.safetensors")
    learned = [name for name in saved if name not in student.state_dict()]
    assert sorted(tuple(saved[name].shape) for name in learned) == [(64, 32)] * 2
    for each, name, other in zip(start, sorted(learned), objective.parameters(), strict=True):
        assert torch.equal(saved[name], other)
        assert (saved[name] - each).norm() > 1e-3


@pytest.mark.parametrize(
    "aim",
    [
        Aim(kl=1.0, temperature=2.0),
        Aim("reverse-kl", kl=1.0, temperature=2.0),
        Aim("jsd", kl=1.0, match_hidden=1.0),
    ],
    ids=["forward", "reverse", "jsd and matching"],
)
def test_a_copy_of_the_teacher_learns_exactly_nothing(
    teacher: Any, rows: list[Row], aim: Aim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "fast_dtype", lambda device: torch.float32)
    model = copy.deepcopy(teacher)
    schedule = Schedule(4, 4, learning_rate=1e-2, weight_decay=0.0)
    trained = train(model, rows, aim.beside(model, teacher, 5), schedule, "Training")
    assert trained.losses == [0.0] * 4
    assert same(state_of(model), state_of(teacher))


def test_in_the_processors_fast_type_the_divergence_is_nothing_too(
    teacher: Any, rows: list[Row]
) -> None:
    model = copy.deepcopy(teacher)
    schedule = Schedule(4, 4, learning_rate=1e-2, weight_decay=0.0)
    for aim in (Aim(kl=1.0, temperature=2.0), Aim("jsd", kl=1.0, temperature=2.0)):
        trained = train(model, rows, aim.beside(model, teacher, 5), schedule, "Training")
        assert trained.losses == [0.0] * 4


@pytest.mark.parametrize("name", ["temperature", "matching", "on-policy"])
def test_with_its_teacher_in_each_step_the_student_comes_nearer(
    name: str, student: Any, teacher: Any, rows: list[Row]
) -> None:
    measure = Distillation(1.0)

    def divergence(model: Any) -> float:
        with torch.no_grad():
            return measure(model, trainer.collate(rows)).item()

    model, before = copy.deepcopy(student), divergence(student)
    run(model, teacher, rows, AIMS[name], steps=40)
    assert divergence(model) < 0.8 * before


def test_names_stand_for_what_they_say(student: Any, teacher: Any) -> None:
    assert Aim().without_teacher() == Distillation(0.7, 0.0)
    assert Aim("reverse-kl", kl=1.0).without_teacher() == Distillation(1.0, 1.0)
    assert Aim("jsd").without_teacher() == Distillation(0.7, 0.5)
    assert Aim("jsd", beta=0.1).without_teacher() == Distillation(0.7, 0.1)
    assert Aim("cross-entropy").without_teacher() is cross_entropy
    assert [Aim(loss).recorded for loss in LOSSES] == [True, True, True, False]
    live = Aim("jsd", temperature=3.0).beside(student, teacher, 5)
    assert isinstance(live, LiveDistillation)
    assert (live.blend.beta, live.blend.share, live.blend.temperature) == (0.5, 0.7, 3.0)
    writing = Aim(on_policy=0.25).beside(student, teacher, 7)
    assert isinstance(writing, OnPolicy)
    assert (writing.share, writing.longest, writing.teacher) == (0.25, 7, teacher)


def test_blocks_are_paired_at_equal_depths(small_model: Build) -> None:
    deep, shallow = small_model(num_hidden_layers=8), small_model(num_hidden_layers=3)
    assert even_pairs(shallow, deep) == [(1, 3), (2, 5), (3, 8)]
    assert even_pairs(deep, deep) == [(n, n) for n in range(1, 9)]
    assert even_pairs(deep, shallow)[0] == (1, 1)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"loss": "kl"}, "--loss .*forward-kl, reverse-kl, jsd, cross-entropy"),
        ({"beta": 0.5}, "--beta"),
        ({"loss": "jsd", "beta": 0.0}, "--beta"),
        ({"loss": "jsd", "beta": float("nan")}, "--beta"),
        ({"kl": 1.1}, "--kl"),
        ({"kl": float("nan")}, "--kl"),
        ({"temperature": 0.0}, "--temperature"),
        ({"temperature": float("inf")}, "--temperature"),
        ({"match_hidden": -1.0}, "--match-hidden"),
        ({"on_policy": 1.5}, "--on-policy"),
        ({"loss": "cross-entropy", "kl": 0.5}, "--kl"),
        ({"loss": "cross-entropy", "temperature": 2.0}, "--temperature"),
        ({"loss": "cross-entropy", "on_policy": 0.5}, "--on-policy"),
        ({"match_hidden": 1.0, "on_policy": 0.5}, "--match-hidden and --on-policy"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named) as error:
        Aim(**asked)
    assert "\n" not in str(error.value)


def test_batches_tell_where_prompts_end(rows: list[Row]) -> None:
    batch = trainer.collate(rows[:3])
    assert batch["prompt_lengths"].tolist() == [3, 3, 3]
    told = [row | {"tail": torch.zeros(len(row["top"]))} for row in rows[:2]]
    assert trainer.collate(told)["tail"].shape == (np.sum([len(row["top"]) for row in rows[:2]]),)
