"""The quote: what it promises grows with the job, and is settled with what was taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import flyweight
from flyweight.checkpoint import open_checkpoint
from flyweight.errors import OptionError
from flyweight.make.effort import EFFORTS, default_steps
from flyweight.make.quote import Sizes, course, make_quote, settle, sizes_of
from flyweight.make.rates import Machine
from flyweight.make.show_quote import show_quote
from flyweight.make.store import work_folder
from flyweight.tasks.read import read_task

SIZES = Sizes(
    items={"train": 3000, "dev": 500, "test": 1000},
    prompt=53.0,
    answer=17.0,
    unanswered=0,
    teacher=8_400_000,
    levels=(840_000, 1_680_000, 3_360_000),
    shapes=80,
    vocabulary=2048,
    steps=900,
    generates=True,
)
QUICK = EFFORTS["quick"]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path / "state"))


@pytest.mark.parametrize(
    "bigger",
    [
        {"teacher": 84_000_000},
        {"steps": 9000},
        {"items": {"train": 3000, "dev": 5000, "test": 1000}},
        {"levels": (8_400_000,) * 3},
        {"prompt": 530.0},
        {"unanswered": 2000},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_bigger_job_is_quoted_higher(bigger: dict[str, Any]) -> None:
    machine = Machine("m")
    small, big = (make_quote(each, QUICK, machine) for each in (SIZES, replace(SIZES, **bigger)))
    assert big.seconds > small.seconds
    assert big.memory >= small.memory
    assert small.seconds_high >= small.seconds
    assert sum(stage.quoted for stage in small.stages) == pytest.approx(small.seconds)


def test_more_effort_costs_more_and_a_faster_machine_less() -> None:
    quotes = []
    for effort in EFFORTS.values():
        levels = [
            round(level * SIZES.teacher) for level in effort.levels for _ in range(effort.width)
        ]
        sizes = replace(SIZES, levels=tuple(levels), steps=default_steps(3000, effort))
        quotes.append(make_quote(sizes, effort, Machine("m")).seconds)
    assert quotes == sorted(quotes)
    slow, fast = (make_quote(SIZES, QUICK, Machine("m", speed=each)).seconds for each in (1, 10))
    assert fast == pytest.approx(slow / 10)


def test_the_longest_course_trains_every_shape_to_the_end() -> None:
    works = course(SIZES, QUICK, longest=True)
    steps = sum(work.units for work in works if work.kind == "distil")
    assert steps == SIZES.steps * len(SIZES.levels)
    assert sum(work.kind == "pack" for work in works) == len(SIZES.levels)


def test_settled_it_shows_both_and_what_was_not_foreseen(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x" * 1234)
    quote = make_quote(SIZES, QUICK, Machine("m"))
    settled = settle(quote, {"distil": 10.0, "surprise": 2.0}, 5000, tmp_path)
    stages = {stage.name: (stage.quoted, stage.actual) for stage in settled.stages}
    assert stages["surprise"] == (0.0, 2.0)
    assert stages["distil"][1] == 10.0
    assert stages["rank"][1] is None
    assert (settled.actual_seconds, settled.actual_tokens) == (12.0, 5000)
    assert settled.actual_disk == 1234
    assert settled.seconds == quote.seconds


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "task.jsonl"
    lines = [{"prompt": f"pump {i} is leaking", "answer": f"pump {i}"} for i in range(700)]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


def test_sizes_are_those_of_the_task(tiny_llama: Path, task: Path) -> None:
    source, items = open_checkpoint(tiny_llama), read_task(task)
    tokenizer = source.tokenizer()
    sizes = sizes_of(items, source, tokenizer, QUICK, 50, True)
    assert sizes.items == {name: len(part) for name, part in items.splits.items()}
    assert sizes.teacher == source.parameters
    wanted = [len(tokenizer(item.answer)["input_ids"]) + 1 for item in items.train[:200]]
    assert sizes.answer == pytest.approx(sum(wanted) / len(wanted), rel=0.05)


def test_a_dry_run_quotes_and_writes_nothing(
    tiny_llama: Path, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    before = sorted(tmp_path.iterdir())
    flyweight.make(str(tiny_llama), task=task, out=out, dry_run=True)
    said = capsys.readouterr().out
    assert "Quote for" in said
    assert "assumed" in said
    assert not out.exists()
    assert not work_folder(out).exists()
    assert sorted(tmp_path.iterdir()) == before


def test_another_machine_is_for_quotes_alone(tiny_llama: Path, task: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flyweight.make(str(tiny_llama), task=task, out=out, dry_run=True, machine="h100")
    with pytest.raises(OptionError, match="--dry-run"):
        flyweight.make(str(tiny_llama), task=task, out=out, machine="h100")


def test_warnings_are_shown_as_they_are() -> None:
    console = Console(width=80, record=True)
    show_quote(make_quote(SIZES, QUICK, Machine("[m]")), ["dev [red] has few groups"], console)
    said = console.export_text()
    assert "dev [red] has few groups" in said
    assert "[m]" in said
