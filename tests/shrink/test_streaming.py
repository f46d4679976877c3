"""A measurement over a corpus of any size: what is held, what is counted, how it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measuring
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.anatomy import family_of
from flyweight.errors import FolderError, TaskError
from flyweight.shrink import batches, calibrate, sums
from flyweight.shrink.batches import Stream
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.importance import Importance
from zoo import build

PROMPTS = list(measuring.corpus(24))
NAMES = ("layers", "hidden", "mlp", "values")


@pytest.fixture(scope="module")
def model() -> Any:
    return build("llama", num_hidden_layers=2)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches a window, and a save after every batch."""
    monkeypatch.setattr(batches, "WINDOW", 2)
    monkeypatch.setattr(calibrate, "WINDOW", 2)
    monkeypatch.setattr(sums, "SAVE_EVERY", 0.0)


def measured(model: Any, prompts: Any, keep: Path | None = None, **settings: Any) -> Importance:
    return measure_importance(model, family_of(model.config), prompts, 4, keep=keep, **settings)


def equal(one: Importance, other: Importance) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in NAMES)


@settings(max_examples=40, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(3, 70), max_size=9), max_size=40),
    batch_size=st.integers(1, 5),
    budget=st.none() | st.integers(1, 150),
)
def test_every_token_comes_once_up_to_the_budget(
    prompts: list[list[int]], batch_size: int, budget: int | None
) -> None:
    found = []
    for batch in Stream(iter(prompts), batch_size, budget):
        assert len(batch.ids) <= batch_size
        assert (batch.counts.long().diff(dim=1) <= 0).all(), "padding stands on the right"
        found += [row[kept].tolist() for row, kept in zip(batch.ids, batch.counts, strict=True)]
    wanted, left = [], 10**9 if budget is None else budget
    for prompt in prompts:
        wanted.append(prompt[:left])
        left -= len(wanted[-1])
    assert sorted(found) == sorted(row for row in wanted if row)


def test_long_sequences_make_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST", 24)
    sizes = [batch.ids.shape for batch in Stream([[1] * n for n in (3, 30, 8, 8, 8, 8)], 32, None)]
    assert [tuple(size) for size in sizes] == [(3, 8), (2, 8), (1, 30)]


@pytest.mark.usefixtures("small_windows")
def test_only_a_window_is_held(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read, ahead, done = 0, [], [0]

    def prompts() -> Iterator[list[int]]:
        nonlocal read
        for prompt in PROMPTS:
            read += 1
            yield prompt

    take = calibrate._Meter.take

    def looked(meter: Any, batch: Any) -> None:
        take(meter, batch)
        done[0] += len(batch.ids)
        ahead.append(read - done[0])

    monkeypatch.setattr(calibrate._Meter, "take", looked)
    found = measured(model, prompts())
    assert len(ahead) == 6
    assert max(ahead) <= 4, "of 8 prompts in a window, 4 are already taken"
    assert equal(found, measured(model, PROMPTS))


def test_a_budget_counts_tokens(model: Any) -> None:
    whole = [PROMPTS[0], PROMPTS[1], PROMPTS[2][:1]]
    budget = sum(map(len, whole))
    assert equal(measured(model, iter(PROMPTS), tokens=budget), measured(model, whole))
    assert equal(measured(model, PROMPTS, tokens=10**6), measured(model, PROMPTS))


def test_nothing_to_measure_is_said(model: Any) -> None:
    for prompts in ([], [[], []], iter(())):
        with pytest.raises(TaskError, match="no token to measure importance on"):
            measured(model, prompts)


@pytest.mark.usefixtures("small_windows")
def test_it_goes_on_where_it_broke_off(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking() -> Iterator[list[int]]:
        yield from PROMPTS[:17]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(model, breaking(), tmp_path)
    assert measuring.saved(tmp_path.parent) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["after-4"], "two windows were whole"
    taken: list[int] = []
    take = calibrate._Meter.take
    monkeypatch.setattr(
        calibrate._Meter, "take", lambda meter, batch: (taken.append(1), take(meter, batch))
    )
    found = measured(model, iter(PROMPTS), tmp_path)
    assert len(taken) == 2, "of 6 batches, 4 were done"
    assert equal(measured(model, PROMPTS, tmp_path), found)
    assert len(taken) == 2, "all were done"
    assert equal(measured(model, PROMPTS), found)


@pytest.mark.usefixtures("small_windows")
def test_what_is_not_whole_does_not_count(model: Any, tmp_path: Path) -> None:
    wanted = measured(model, PROMPTS, tmp_path)
    (tmp_path / "after-6" / "sums.safetensors").write_bytes(b"cut short")
    (tmp_path / "after-9").mkdir()
    assert equal(measured(model, PROMPTS, tmp_path), wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after-6"]


@pytest.mark.usefixtures("small_windows")
def test_sums_of_something_else_are_refused(model: Any, tmp_path: Path) -> None:
    measured(model, PROMPTS, tmp_path)
    other = [[9, 9], *PROMPTS[1:]]
    for prompts in (other, PROMPTS[:-1], [*PROMPTS, [4, 5]][1:]):
        with pytest.raises(FolderError, match=r"holds sums over other prompts\. Give another"):
            measured(model, prompts, tmp_path)
    with pytest.raises(FolderError, match="over other model or other settings"):
        measured(build("llama", seed=1, num_hidden_layers=2), PROMPTS, tmp_path)
    with pytest.raises(FolderError, match="over other model or other settings"):
        measured(model, PROMPTS, tmp_path, taylor=True)


def test_kills_change_nothing(tmp_path: Path) -> None:
    """Killed while it saves, again and again, it comes to the very file of a run left alone."""
    prompts = 40
    assert measuring.measure(tmp_path / "alone", prompts)
    place, kills = tmp_path / "killed", 0
    for after in (1, 3, 4, 8):
        kills += not measuring.measure(place, prompts, pause=0.01, kill_after=after)
    assert kills >= 3, "it was done too soon"
    assert measuring.measure(place, prompts)
    alone = (tmp_path / "alone" / "scores").read_bytes()
    assert (place / "scores").read_bytes() == alone
