"""The verb `distill` asks a teacher once about the same data, and says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flyweight
from flyweight.checkpoint import Checkpoint
from flyweight.errors import NoSpace, OptionError

WORDS = ("pump", "valve", "motor", "oil")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [
        {"prompt": f"{split}: the {word} {i}", "answer": f"{word} is hot", "split": split}
        for split, count in (("train", 6), ("dev", 1), ("test", 1))
        for i in range(count)
        for word in WORDS
    ]
    path = tmp_path_factory.mktemp("data") / "task.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


@pytest.fixture(scope="module")
def student(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("student") / "s", num_hidden_layers=1)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are loaded."""
    names: list[str] = []
    load = Checkpoint.model

    def model(checkpoint: Checkpoint) -> Any:
        names.append(Path(checkpoint.name).name)
        return load(checkpoint)

    monkeypatch.setattr(Checkpoint, "model", model)
    return names


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_the_second_time_the_teacher_is_not_run(
    tiny_llama: Path,
    student: Path,
    data: Path,
    tmp_path: Path,
    loaded: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache = tmp_path / "kept"
    wanted: dict[str, Any] = {"data": data, "steps": 3, "batch_size": 8, "cache": cache}
    first = flyweight.distill(str(tiny_llama), str(student), tmp_path / "a", **wanted)
    assert tiny_llama.name in loaded
    told = said(capsys)
    assert "is kept for the next time in" in told
    assert "of the mass on average" in told
    [place] = cache.iterdir()
    loaded.clear()
    again = flyweight.distill(str(tiny_llama), str(student), tmp_path / "b", **wanted)
    assert tiny_llama.name not in loaded
    assert "The teacher is not run" in said(capsys)
    assert weights(again) == weights(first)
    assert list(cache.iterdir()) == [place]


def test_without_a_folder_it_is_the_users(
    tiny_llama: Path, student: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "user"))
    flyweight.distill(str(tiny_llama), str(student), tmp_path / "a", data=data, steps=1)
    [place] = (tmp_path / "user" / "teachers").iterdir()
    assert (place / "complete.json").exists()


def test_a_budget_is_kept_to_before_the_teacher_is_loaded(
    tiny_llama: Path, student: Path, data: Path, tmp_path: Path, loaded: list[str]
) -> None:
    wanted: dict[str, Any] = {"data": data, "steps": 1, "cache": tmp_path / "kept"}
    out = tmp_path / "out"
    with pytest.raises(NoSpace, match=r"a top \d+ would fit"):
        flyweight.distill(str(tiny_llama), str(student), out, cache_budget="20kB", **wanted)
    assert tiny_llama.name not in loaded
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OptionError, match="--cache-budget is 'much'"):
        flyweight.distill(str(tiny_llama), str(student), out, cache_budget="much", **wanted)
    flyweight.distill(str(tiny_llama), str(student), out, cache_budget="20kB", top_k=3, **wanted)


def test_where_nothing_is_recorded_there_is_nothing_to_keep(
    tiny_llama: Path, student: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="nothing is recorded"):
        flyweight.distill(
            str(tiny_llama), str(student), tmp_path / "out", data=data,
            loss="cross-entropy", cache=tmp_path / "kept",
        )  # fmt: skip
