"""Objectives with a live teacher, and answers that the student writes itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from flyweight.distill import live
from flyweight.distill.alignment import align
from flyweight.distill.divergences import Blend
from flyweight.distill.live import LiveDistillation, OnPolicy, write
from flyweight.distill.losses import cross_entropy, wanted_tokens
from flyweight.errors import OptionError, TeacherError

Build = Callable[..., Any]


@pytest.fixture
def student(small_model: Build) -> Any:
    return small_model(num_hidden_layers=2, hidden_size=32)


@pytest.fixture
def teacher(small_model: Build) -> Any:
    return small_model(seed=1, num_hidden_layers=2)


def batch_of(lengths: list[int], prompt: int = 3) -> dict[str, Tensor]:
    """Right-padded rows whose first `prompt` tokens have a small weight."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 80, (len(lengths), max(lengths)), generator=generator)
    weights = torch.zeros(ids.shape)
    for row, length in enumerate(lengths):
        ids[row, length:] = 0
        weights[row, :length] = 1
        weights[row, :prompt] = 0.2
    return {"input_ids": ids, "weights": weights}


def by_definition(model: Any, teacher: Any, batch: dict[str, Tensor]) -> Tensor:
    """The weighted mean of KL(teacher || student), from all logits in double precision."""
    q, p = (
        each(batch["input_ids"]).logits[:, :-1].double().log_softmax(-1)
        for each in (model, teacher)
    )
    apart = (p.exp() * (p - q)).sum(-1)
    weights = batch["weights"][:, 1:]
    return (apart * weights).sum() / weights.sum()


def test_a_live_teacher_is_the_definition(student: Any, teacher: Any) -> None:
    batch = batch_of([5, 9, 12])
    wanted = by_definition(student, teacher, batch)
    found = LiveDistillation(teacher, Blend())(student, batch)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    kept = list(student.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(found, kept), torch.autograd.grad(wanted, kept), strict=True
    ):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-7
    assert all(each.grad is None for each in teacher.parameters())


def test_without_the_teacher_it_is_cross_entropy(student: Any, teacher: Any) -> None:
    batch = batch_of([5, 9, 12])
    found = LiveDistillation(teacher, Blend(0.0))(student, batch)
    assert found.item() == pytest.approx(cross_entropy(student, batch).item(), rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_a_copy_of_the_teacher_has_nothing_to_learn(teacher: Any, beta: float) -> None:
    model, batch = copy.deepcopy(teacher), batch_of([5, 9, 12])
    found = LiveDistillation(teacher, Blend(1.0, beta))(model, batch)
    found.backward()
    assert found.item() == 0
    assert all((each.grad == 0).all() for each in model.parameters())


def test_heads_of_other_sizes_are_refused_unless_said_how(student: Any, small_model: Build) -> None:
    teacher = small_model(seed=1, num_hidden_layers=2, vocab_size=88)
    batch = batch_of([5, 9])
    with pytest.raises(TeacherError, match="80 embeddings, the teacher 88"):
        LiveDistillation(teacher, Blend())(student, batch)
    padded = LiveDistillation(teacher, Blend(), align(80, 88, tokens=80))
    cut = copy.deepcopy(teacher)
    cut.resize_token_embeddings(80, mean_resizing=False)
    wanted = LiveDistillation(cut, Blend())(student, batch)
    assert padded(student, batch).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_student_with_a_cut_vocabulary_hears_the_teacher_in_its_own_ids(
    teacher: Any, small_model: Build
) -> None:
    """The student is the teacher with fewer rows: it does as well as it can, and learns nothing."""
    keep = torch.arange(0, 80, 2)
    model = small_model(seed=1, num_hidden_layers=2, vocab_size=40)
    state = teacher.state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = state[name][keep]
    model.load_state_dict(state)
    batch = batch_of([5, 9, 12])
    batch["input_ids"] = batch["input_ids"] // 2
    stranger = small_model(seed=5, num_hidden_layers=1, vocab_size=40)
    for beta in (0.0, 0.5, 1.0):
        objective = LiveDistillation(
            teacher, Blend(1.0, beta), align(40, 80, rows=keep), to_teacher=keep
        )
        model.zero_grad()
        loss = objective(model, batch)
        loss.backward()
        assert abs(loss.item()) < 1e-5
        assert max(each.grad.abs().max() for each in model.parameters()) < 1e-5
        assert objective(stranger, batch).item() > 0.05


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2"])
def test_what_the_model_writes_is_its_likeliest_answer(name: str) -> None:
    """Row by row, token by token, without padding or cache: transformers' logits alone."""
    model = zoo.build(name, eos_token_id=7)
    batch = batch_of([5, 9, 12], prompt=4)
    batch["weights"][1, :6] = 0.2  # prompts of unlike lengths
    written = write(model, batch, longest=6, heat=0)
    for row, prompt in enumerate((4, 6, 4)):
        ids = batch["input_ids"][row, :prompt]
        for _ in range(6):
            ids = torch.cat([ids, zoo.logits(model, ids[None])[0, -1].argmax()[None]])
            if ids[-1] == 7:
                break
        found, weights = written["input_ids"][row], written["weights"][row]
        assert found[: len(ids)].tolist() == ids.tolist()
        assert (found[len(ids) :] == 0).all()
        assert weights.nonzero()[:, 0].tolist() == list(range(prompt, len(ids)))
        assert set(weights.tolist()) <= {0.0, 1.0}
    batch["weights"] *= 0.1  # without weights of 1 the lengths have to be said
    told = write(model, batch | {"prompt_lengths": torch.tensor([4, 6, 4])}, longest=6, heat=0)
    assert all(torch.equal(told[key], written[key]) for key in written)


def test_an_answer_ends_with_its_end_token(student: Any) -> None:
    likeliest = write(student, batch_of([6]), longest=8, heat=0)
    answer = likeliest["input_ids"][0, 3:].tolist()
    student.generation_config.eos_token_id = [answer[2], 79]
    ended = write(student, batch_of([6]), longest=8, heat=0)
    first = answer.index(answer[2])
    assert ended["input_ids"][0, 3 : 3 + first + 1].tolist() == answer[: first + 1]
    assert ended["weights"][0].sum() == first + 1
    assert (ended["input_ids"][0, 3 + first + 1 :] == 0).all()


def test_hot_answers_are_drawn_as_the_model_says(student: Any) -> None:
    """The first token of 4,000 answers, against the model's own distribution."""
    batch = batch_of([6])
    many = {name: each.expand(4000, -1).clone() for name, each in batch.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        written = write(student, many, longest=1, heat=2.0)
    counts = torch.bincount(written["input_ids"][:, 3], minlength=80) / 4000
    wanted = (zoo.logits(student, batch["input_ids"][:, :3])[0, -1] / 2).softmax(-1)
    assert (counts - wanted).abs().sum() / 2 < 0.06  # total variation


def test_writing_leaves_the_model_as_it_was(student: Any, teacher: Any) -> None:
    student.train()
    before = student.config.use_cache
    with torch.autocast("cpu", torch.bfloat16):
        loss = OnPolicy(LiveDistillation(teacher, Blend(1.0, 1.0)), 1.0, 5)(student, batch_of([6]))
    assert student.training
    assert student.config.use_cache == before
    loss.backward()  # autocast keeps no copies of the weights from the pass without a graph
    assert all(each.grad is not None for each in student.parameters())
    assert student.model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0


def test_on_policy_is_the_teachers_judgement_of_what_was_written(
    student: Any, teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "HEAT", 0.0)
    judge = LiveDistillation(teacher, Blend(1.0, 1.0))
    batch = batch_of([5, 9, 12]) | {"total": torch.tensor(1e9)}
    written = write(student, batch, 5, 0)
    q, p = (
        each(written["input_ids"]).logits[:, :-1].double().log_softmax(-1)
        for each in (student, teacher)
    )
    weights = written["weights"][:, 1:]
    wanted = ((q.exp() * (q - p)).sum(-1) * weights).sum() / weights.sum()
    found = OnPolicy(judge, share=1.0, longest=5)(student, batch)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)
    mixed = LiveDistillation(teacher, Blend(0.3, 1.0))
    found = OnPolicy(mixed, share=1.0, longest=5)(student, batch)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)  # what is written is no truth
    given = OnPolicy(mixed, share=0.0)(student, batch)
    assert given.item() == pytest.approx(mixed(student, batch).item())


@pytest.mark.parametrize("cut", [False, True])
def test_the_student_never_writes_a_row_that_is_no_token(
    teacher: Any, small_model: Build, cut: bool
) -> None:
    """Its head is padded: what the teacher has no token for would be no answer."""
    student = small_model(seed=2, num_hidden_layers=1, vocab_size=96)
    keep = torch.arange(60) if cut else None
    alignment = align(96, 80, rows=keep, tokens=None if cut else 80)
    judge = LiveDistillation(teacher, Blend(1.0, 1.0), alignment, keep)
    batch = batch_of([6] * 16)
    batch["input_ids"] %= 60
    never = judge.unjudged(student)
    assert never == list(range(60 if cut else 80, 96))
    written = write(student, batch, 8, 1.0, never)
    assert int(written["input_ids"].max()) < min(never)
    assert OnPolicy(judge, share=1.0, longest=8)(student, batch).isfinite()


def test_a_penalty_in_the_generation_config_does_not_bend_what_is_drawn(student: Any) -> None:
    batch = batch_of([6] * 8)
    plain = write(student, batch, 12, 0)["input_ids"]
    student.generation_config.repetition_penalty = 1e9
    assert torch.equal(write(student, batch, 12, 0)["input_ids"], plain)
    assert student.generation_config.repetition_penalty == 1e9


def test_on_policy_training_brings_the_student_to_its_teacher(small_model: Build) -> None:
    teacher = small_model(num_hidden_layers=1)
    student = copy.deepcopy(teacher)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in student.parameters():
            each.add_(torch.randn(each.shape, generator=generator) * each.std() * 0.5)
    objective = OnPolicy(LiveDistillation(teacher, Blend(1.0, 1.0)), 1.0, longest=8)
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(40):
            loss = objective(student, batch_of([6] * 16))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_a_row_without_a_prompt_is_refused(student: Any) -> None:
    batch = batch_of([5, 9])
    batch["weights"][1] = 1.0
    with pytest.raises(OptionError, match="no prompt"):
        write(student, batch, 3, 0)


def test_weights_count_as_shares_of_the_total() -> None:
    batch = batch_of([4, 7])
    targets, shares = wanted_tokens(batch)
    assert len(targets) == 3 + 6
    assert shares.sum().item() == pytest.approx(1.0)
    assert shares[-1].item() == pytest.approx(5 * shares[0].item())
    _, given = wanted_tokens(batch | {"total": torch.tensor(100.0)})
    assert given.sum().item() == pytest.approx(batch["weights"][:, 1:].sum().item() / 100)
