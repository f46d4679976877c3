"""A training that was broken off ends in the same bits as one that was not."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from flyweight.distill import trainer
from flyweight.distill.losses import cross_entropy
from flyweight.distill.resume import Trained, newest_checkpoint
from flyweight.distill.trainer import Probe, Row, Schedule, train

Build = Callable[..., Any]
SCHEDULE = Schedule(steps=12, batch_size=4, learning_rate=3e-3)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    generator = np.random.default_rng(0)
    made = []
    for _ in range(30):
        ids = generator.integers(3, 80, size=int(generator.integers(6, 14))).astype(np.int32)
        made.append({"input_ids": ids, "weights": np.ones(len(ids), dtype=np.float32)})
    return made


def read_norm(model: Any) -> dict[str, float]:
    with torch.no_grad():
        return {"norm": float(torch.stack([w.norm() for w in model.parameters()]).norm())}


PROBE = Probe(frozenset({3, 6, 12}), read_norm)


def run(model: Any, rows: list[Row], schedule: Schedule = SCHEDULE, **options: Any) -> Trained:
    return train(model, rows, cross_entropy, schedule, "Training", probe=PROBE, **options)


def same_bits(one: Any, other: Any) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("stops", [(5,), (1, 2, 11), (12,)], ids=str)
@pytest.mark.parametrize(
    "schedule", [SCHEDULE, replace(SCHEDULE, muon=True)], ids=["adamw", "muon"]
)
def test_stopping_and_going_on_changes_no_bit(
    stops: tuple[int, ...],
    schedule: Schedule,
    small_model: Build,
    rows: list[Row],
    tmp_path: Path,
) -> None:
    start = small_model(num_hidden_layers=2)
    straight = copy.deepcopy(start)
    whole = run(straight, rows, schedule)
    for stop in stops:
        broken = run(copy.deepcopy(start), rows, schedule, keep=tmp_path, until=stop)
        assert (broken.step, len(broken.losses)) == (stop, stop)
    # the weights to go on from are the checkpoint's, whatever the model held
    again = small_model(num_hidden_layers=2, seed=9)
    ended = run(again, rows, schedule, keep=tmp_path)
    assert same_bits(straight, again)
    assert ended.losses == whole.losses
    assert ended.readings == whole.readings
    assert [step for step, _ in whole.readings] == [3, 6, 12]


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gemma3"])
def test_families_whose_files_have_other_names_go_on_too(
    name: str, rows: list[Row], tmp_path: Path
) -> None:
    """transformers' Trainer saves experts apart and loads none of them, without a word."""
    straight, again = zoo.build(name), zoo.build(name, seed=9)
    run(straight, rows)
    run(zoo.build(name), rows, keep=tmp_path, until=5)
    run(again, rows, keep=tmp_path)
    assert same_bits(straight, again)
    other = zoo.build(name, seed=5)
    run(other, rows, keep=tmp_path)  # it is done: its weights are the checkpoint's
    assert same_bits(straight, other)


def test_a_reading_is_of_the_model_at_its_step(
    small_model: Build, rows: list[Row], tmp_path: Path
) -> None:
    model = small_model(num_hidden_layers=2)
    trained = run(model, rows, keep=tmp_path)
    assert dict(trained.readings)[12] == pytest.approx(read_norm(model))
    assert trained.until(6).readings == trained.readings[:2]
    assert len(trained.until(6).losses) == 6


@pytest.mark.parametrize("harm", ["cut short", "one bit", "no seal", "a file gone"])
def test_a_checkpoint_that_is_not_whole_does_not_count(
    harm: str, small_model: Build, rows: list[Row], tmp_path: Path
) -> None:
    model = small_model(num_hidden_layers=2)
    run(copy.deepcopy(model), rows, keep=tmp_path, until=4)
    good = tmp_path / "checkpoint-4"
    bad = shutil.copytree(good, tmp_path / "checkpoint-8")
    weights = bad / "model.safetensors"
    data = bytearray(weights.read_bytes())
    if harm == "cut short":
        weights.write_bytes(data[:-100])
    elif harm == "one bit":
        data[-1] ^= 1
        weights.write_bytes(data)
    elif harm == "no seal":
        (bad / "complete.json").unlink()
    else:
        (bad / "optimizer.pt").unlink()
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.path == good
    straight = copy.deepcopy(model)
    run(straight, rows)
    run(model, rows, keep=tmp_path)
    assert same_bits(straight, model)


def test_only_the_newest_checkpoint_is_kept(
    small_model: Build, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", 0.0)
    run(small_model(num_hidden_layers=2), rows, keep=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-12"]
