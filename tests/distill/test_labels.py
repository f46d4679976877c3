"""Learning to classify: the loss is its definition, padding is not seen, a student learns."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import zoo
from flyweight.distill.labels import (
    LabelDistillation,
    ask_labels,
    label_logits,
    label_rows,
    with_said,
)
from flyweight.distill.parts import parts
from flyweight.distill.trainer import Schedule, collate, train
from flyweight.errors import TaskError, TeacherError
from flyweight.tasks.items import Item
from flyweight.tasks.labels import Labelled, label_items
from tiny import tiny_tokenizer

LENGTHS = (5, 12, 3, 9, 7, 12)


def texts(count: int = len(LENGTHS), labels: int = 5) -> list[Labelled]:
    generator = np.random.default_rng(0)
    return [
        Labelled(
            generator.integers(3, 60, LENGTHS[place % len(LENGTHS)]).astype(np.int32),
            place % labels,
        )
        for place in range(count)
    ]


@pytest.fixture(params=["bert", "modernbert"])
def teacher(request: pytest.FixtureRequest) -> Any:
    return zoo.build(request.param)


def labels_of(model: Any) -> int:
    return int(model.config.num_labels)


def test_logits_are_those_of_each_text_alone(teacher: Any) -> None:
    rows = label_rows(texts(labels=labels_of(teacher)))
    with torch.inference_mode():
        together = label_logits(teacher, collate(rows))
        alone = [teacher(torch.from_numpy(row["input_ids"]).long()[None]).logits[0] for row in rows]
    assert (together - torch.stack(alone)).abs().max() < 1e-5


@pytest.mark.parametrize("kl", [0.0, 0.7, 1.0])
def test_the_loss_is_its_definition(teacher: Any, kl: float) -> None:
    rows = label_rows(texts(labels=labels_of(teacher)))
    student = zoo.build(teacher.config.model_type, seed=1)
    said = ask_labels(teacher, rows)
    batch = collate(with_said(rows, said))
    found = LabelDistillation(kl)(student, batch)
    logits = label_logits(student, batch).double()
    p = torch.from_numpy(said).double().exp()
    apart = F.kl_div(logits.log_softmax(-1), p, reduction="batchmean")
    right = F.cross_entropy(logits, batch["labels"])
    wanted = kl * apart + (1 - kl) * right
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    kept = [each for each in student.parameters() if each.requires_grad]
    for mine, theirs in zip(
        torch.autograd.grad(found, kept, allow_unused=True),
        torch.autograd.grad(wanted, kept, allow_unused=True),
        strict=True,
    ):
        if theirs is not None:
            assert (mine - theirs).norm() <= 1e-4 * theirs.norm() + 1e-7


def test_equals_have_nothing_to_learn(teacher: Any) -> None:
    rows = label_rows(texts(labels=labels_of(teacher)))
    batch = collate(rows)
    with torch.inference_mode():
        batch["said"] = label_logits(teacher, batch).log_softmax(-1)
    loss = LabelDistillation(1.0)(copy.deepcopy(teacher), batch)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_a_text_without_a_label_counts_by_its_divergence_alone(teacher: Any) -> None:
    examples = texts(labels=labels_of(teacher))
    rows = label_rows([Labelled(each.ids, None) for each in examples])
    batch = collate(with_said(rows, ask_labels(teacher, rows)))
    student = zoo.build(teacher.config.model_type, seed=1)
    both = LabelDistillation(0.7)(student, batch)
    alone = LabelDistillation(1.0)(student, batch)
    assert both.item() == pytest.approx(0.7 * alone.item(), rel=1e-5)


def test_parts_add_up(teacher: Any) -> None:
    rows = label_rows(texts(labels=labels_of(teacher)))
    batch = collate(with_said(rows, ask_labels(teacher, rows)))
    student = zoo.build(teacher.config.model_type, seed=1)
    objective = LabelDistillation(0.7)
    split = list(parts(batch, 40))
    assert len(split) > 1
    total = sum(objective(student, each).item() for each in split)
    assert total == pytest.approx(objective(student, batch).item(), rel=1e-5)


def test_a_student_comes_near_its_teacher(teacher: Any) -> None:
    """Without labels, from what the teacher says alone."""
    with torch.no_grad():
        for name, weight in teacher.named_parameters():
            if "classifier" in name:
                weight.mul_(8)  # so that it has something to say
    examples = texts(48, labels_of(teacher))
    rows = label_rows([Labelled(each.ids, None) for each in examples])
    said = ask_labels(teacher, rows)
    student = zoo.build(teacher.config.model_type, seed=1)

    def apart() -> float:
        mine = ask_labels(student, rows)
        return float((np.exp(said) * (said - mine)).sum(1).mean())

    before = apart()
    schedule = Schedule(40, 16, 3e-3)
    train(student, with_said(rows, said), LabelDistillation(1.0), schedule, "Learning")
    assert apart() < before / 4


def test_numbers_that_are_none_are_refused(teacher: Any) -> None:
    with torch.no_grad():
        next(teacher.parameters()).fill_(torch.nan)
    with pytest.raises(TeacherError, match="are no numbers"):
        ask_labels(teacher, label_rows(texts()))


def item(text: str, answer: str | None, line: int = 7) -> Item:
    return Item(({"role": "user", "content": text},), answer, line=line)


def test_items_become_labels() -> None:
    numbers = {"leak": 0, "noise": 1}
    items = [item("the pump is leaking", " leak"), item("it is loud", None)]
    first, second = label_items(tiny_tokenizer(), items, "task", 64, numbers)
    assert (first.label, second.label) == (0, None)
    assert first.ids.tolist() == tiny_tokenizer().apply_chat_template(
        list(items[0].messages), add_generation_prompt=True, return_dict=False
    )


def test_what_is_no_label_or_too_long_is_refused() -> None:
    numbers = {"leak": 0, "noise": 1, "heat": 2, "smell": 3}
    said = r"task, line 7: the answer 'Leak' is none of the teacher's labels \('heat', 'leak', "
    with pytest.raises(TaskError, match=said + r"'noise' and 1 more\)"):
        label_items(tiny_tokenizer(), [item("x", "Leak")], "task", 64, numbers)
    with pytest.raises(TaskError, match=r"line 7: .* tokens do not fit the teacher's context of 8"):
        label_items(
            tiny_tokenizer(), [item("the pump is leaking " * 9, "leak")], "task", 8, numbers
        )


def test_texts_of_one_token_are_learned_from(teacher: Any) -> None:
    examples = [Labelled(np.array([3 + i % 9], dtype=np.int32), i % 5) for i in range(32)]
    student = zoo.build(teacher.config.model_type, seed=1)
    trained = train(
        student, label_rows(examples), LabelDistillation(0.0), Schedule(3, 16, 1e-3), "Learning"
    )
    assert all(loss > 0 for loss in trained.losses)
    assert all(weight.isfinite().all() for weight in student.parameters())
