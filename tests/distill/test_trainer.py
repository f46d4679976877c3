"""The trainer: every row in its turn, the same again from the same seed, and it learns."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from flyweight.distill import trainer
from flyweight.distill.losses import MULTIPLE, Distillation, cross_entropy
from flyweight.distill.order import batch_order
from flyweight.distill.teacher import record_teacher
from flyweight.distill.trainer import Row, Schedule, collate, train

Build = Callable[..., Any]


def random_rows(count: int, seed: int = 0, prompt: int = 2) -> list[Row]:
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        ids = generator.integers(3, 80, generator.integers(5, 14)).astype(np.int32)
        weights = np.ones(len(ids), dtype=np.float32)
        weights[:prompt] = 0
        rows.append({"input_ids": ids, "weights": weights})
    return rows


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=150),
    st.integers(1, 30),
    st.integers(1, 20),
    st.integers(0, 3),
)
def test_every_row_comes_once_an_epoch(
    lengths: list[int], steps: int, batch_size: int, seed: int
) -> None:
    order = batch_order(lengths, steps, batch_size, seed)
    assert len(order) == steps * batch_size
    rows = len(lengths)
    for start in range(0, len(order), rows):
        epoch = order[start : start + rows]
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(rows))
    assert order == batch_order(lengths, steps, batch_size, seed)


def test_the_seed_and_the_epoch_change_the_order() -> None:
    lengths = list(range(64))
    order = batch_order(lengths, 16, 8, 0)
    assert order != batch_order(lengths, 16, 8, 1)
    assert order[:64] != order[64:]


@pytest.mark.parametrize(("rows", "share"), [(3000, 0.3), (3001, 0.3), (1023, 0.3), (40, 0.7)])
def test_a_batch_holds_rows_of_like_length(rows: int, share: float) -> None:
    """Padding is a small part of what random batches would need, also past the first epoch."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(10, 200, rows).tolist()
    steps = 3 * rows // 16

    def padding(order: Any) -> int:
        batches = np.array(lengths)[np.array(order)].reshape(-1, 16)
        return int((batches.max(1, keepdims=True) - batches).sum())

    random_order = generator.integers(0, rows, steps * 16)
    ours = padding(batch_order(lengths, steps, 16, 0))
    assert ours < share * padding(random_order)


def test_batches_come_in_mixed_lengths() -> None:
    """Not from short to long: neighbouring batches differ as random ones do."""
    lengths = list(range(512))
    means = np.array(batch_order(lengths, 64, 8, 0)).reshape(-1, 8).mean(1)
    assert np.abs(np.diff(means)).mean() > 0.5 * np.abs(means - means.mean()).mean()


def test_collate_pads_on_the_right_and_lays_the_teacher_end_to_end() -> None:
    rows = [
        {"input_ids": np.array([5, 6, 7]), "weights": np.array([0, 1, 0.5])},
        {"input_ids": np.array([8, 9]), "weights": np.array([0, 1])},
    ]
    batch = collate(rows)
    assert {each.shape for each in batch.values()} == {(2, MULTIPLE)}
    rest = [0] * (MULTIPLE - 3)
    assert batch["input_ids"].tolist() == [[5, 6, 7, *rest], [8, 9, 0, *rest]]
    assert batch["weights"].tolist() == [[0, 1, 0.5, *rest], [0, 1, 0, *rest]]
    assert set(batch) == {"input_ids", "weights"}
    said = [{"top": torch.ones(2, 4), "indices": torch.ones(2, 4)},
            {"top": torch.zeros(1, 4), "indices": torch.zeros(1, 4)}]  # fmt: skip
    batch = collate([row | more for row, more in zip(rows, said, strict=True)])
    assert batch["top"].tolist() == [[1] * 4, [1] * 4, [0] * 4]


def weights_after(model: Any, rows: list[Row], seed: int, steps: int = 6) -> list[torch.Tensor]:
    student = copy.deepcopy(model)
    train(student, rows, cross_entropy, Schedule(steps, 4, seed=seed), "Training")
    return list(student.state_dict().values())


def test_the_same_seed_gives_the_same_bits(small_model: Build) -> None:
    model, rows = small_model(num_hidden_layers=2), random_rows(20)
    first = weights_after(model, rows, seed=3)
    torch.manual_seed(99)  # what came before must not matter
    second = weights_after(model, rows, seed=3)
    other = weights_after(model, rows, seed=4)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert not all(torch.equal(*pair) for pair in zip(first, other, strict=True))


def test_eight_rows_are_learned_by_heart(
    small_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    model = small_model(num_hidden_layers=2, initializer_range=0.05)
    rows = random_rows(8)
    schedule = Schedule(70, 8, learning_rate=1e-2)
    losses = train(model, rows, cross_entropy, schedule, "Training").losses
    assert len(losses) == 70
    assert losses[0] > 4
    assert losses[-1] < 0.1
    assert not model.training
    with torch.inference_mode():
        assert cross_entropy(model, collate(rows)).item() < 0.1
    assert list(tmp_path.rglob("*")) == [scratch], "training left something behind"


def mean_kl(teacher: Any, student: Any, rows: list[Row]) -> float:
    """Over all wanted positions, from full logits, one row at a time."""
    total = count = 0.0
    with torch.inference_mode():
        for row in rows:
            ids = torch.as_tensor(row["input_ids"])[None].long()
            wanted = torch.as_tensor(row["weights"])[1:] != 0
            log_p, log_q = (
                each(ids).logits[0, :-1][wanted].double().log_softmax(-1)
                for each in (teacher, student)
            )
            total += F.kl_div(log_q, log_p, reduction="sum", log_target=True).item()
            count += len(log_p)
    return total / count


def test_distillation_moves_the_student_towards_the_teacher(small_model: Build) -> None:
    teacher = small_model(seed=1, num_hidden_layers=2)
    student = small_model(seed=2, num_hidden_layers=2, initializer_range=0.05)
    rows = random_rows(32)
    before = mean_kl(teacher, student, rows)
    recorded = record_teacher(teacher, rows, top_k=16)
    frozen = copy.deepcopy(teacher.state_dict())
    schedule = Schedule(60, 16, learning_rate=5e-3)
    train(student, recorded, Distillation(kl=1.0), schedule, "Distilling")
    assert mean_kl(teacher, student, rows) < 0.5 * before
    assert all(torch.equal(frozen[name], each) for name, each in teacher.state_dict().items())


def test_a_token_weighs_the_same_in_short_and_long_batches(
    small_model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a rate of nearly zero, the steps' losses average to the loss a token over all rows."""
    monkeypatch.setattr(trainer, "fast_dtype", lambda device: torch.float32)
    model = small_model(num_hidden_layers=2)
    rows = random_rows(24)
    for row in rows[:12]:  # short rows, whose tokens are as unlikely as random ones never are
        row["input_ids"], row["weights"] = row["input_ids"][:4], row["weights"][:4]
        with torch.inference_mode():
            said = model(torch.as_tensor(row["input_ids"])[None].long()).logits[0]
        row["input_ids"][3] = int(said[2].argmin())
    with torch.inference_mode():
        wanted = cross_entropy(model, collate(rows)).item()
        a_batch = np.mean(
            [cross_entropy(model, collate(part)).item() for part in (rows[:12], rows[12:])]
        )
    assert abs(a_batch - wanted) > 0.5
    schedule = Schedule(6, 4, learning_rate=1e-12)
    losses = train(copy.deepcopy(model), rows, cross_entropy, schedule, "Training").losses
    assert np.mean(losses) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(("besides", "plain"), [(0, True), (400, True), (3000, False)])
def test_attention_is_chosen_by_what_is_attended_to_and_not_by_the_text_alone(
    besides: int, plain: bool, small_model: Build
) -> None:
    """Short texts about large pictures: plain attention would hold 3,000 x 3,000 scores a head."""
    if torch.cuda.is_available():
        pytest.skip("a choice for processors")
    found = []

    class Looking:
        tokens_besides = besides

        def __call__(self, model: Any, batch: Any) -> torch.Tensor:
            found.append(model.config._attn_implementation == "eager")
            return cross_entropy(model, batch)

    train(small_model(), random_rows(2), Looking(), Schedule(1, 2), "Teaching")
    assert set(found) == {plain}
