"""Several tasks at once: the bar holds on each, and the one that binds is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyweight.cli import main
from flyweight.errors import OptionError, TaskError
from flyweight.folder import read_card
from flyweight.make.budget import Budgets
from flyweight.make.data import Split
from flyweight.make.options import Options, check_options
from flyweight.make.students import compare
from flyweight.tasks.items import Item
from flyweight.tasks.read import read_task
from flyweight.tasks.several import combine
from flyweight.tasks.statistics import paired_ratio
from flyweight.tasks.verdict import judge

WANTED: dict[str, Any] = {"effort": "quick", "steps": 4, "bar": 0.5}


def write(path: Path, count: int, about: str, **more: Any) -> Path:
    lines = [{"prompt": f"{about} {n}", "answer": "oil"} | more for n in range(count)]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def test_items_are_mixed_and_know_their_task(tmp_path: Path) -> None:
    long, short = (
        read_task(write(tmp_path / f"{name}.jsonl", count, name, group=None))
        for name, count in (("pumps", 300), ("notes", 60))
    )
    both = combine([long, short])
    assert both.name == "pumps + notes"
    for split, items in both.splits.items():
        assert sorted(item.last_text for item in items) == sorted(
            item.last_text for task in (long, short) for item in task.splits[split]
        )
        assert all(item.last_text.startswith(item.task) for item in items)
        beginning = [item.task for item in items[: len(items) // 2]]
        assert beginning.count("notes") == pytest.approx(len(short.splits[split]) / 2, abs=1)
    groups = {task: {i.group for i in both.train if i.task == task} for task in ("pumps", "notes")}
    assert not groups["pumps"] & groups["notes"]
    assert combine([long]) is long
    assert both.sha256 != combine([short, long]).sha256


def test_one_task_may_not_train_on_what_another_tests(tmp_path: Path) -> None:
    for name, split in (("a", "train"), ("b", "test")):
        lines = [{"prompt": f"{name} {s}", "answer": "x", "split": s}
                 for s in ("train", "dev", "test")]  # fmt: skip
        lines.append({"prompt": "the same", "answer": "x", "split": split})
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    tasks = [read_task(tmp_path / f"{name}.jsonl") for name in "ab"]
    with pytest.raises(TaskError, match=r"b, line 4: .* train prompt of a \(line 4\)"):
        combine(tasks)
    (tmp_path / "other").mkdir()
    same = read_task(write(tmp_path / "other" / "a.jsonl", 60, "c"))
    with pytest.raises(TaskError, match="a: two tasks have this name"):
        combine([tasks[0], same])


def options(tmp_path: Path, bar: float) -> Options:
    return check_options(
        "t", [tmp_path / "a", tmp_path / "b"], tmp_path / "out", bar, None, "exact", "bytes",
        "quick", Budgets(), None, 0,
    )  # fmt: skip


def test_the_task_that_binds_decides(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    names = ["easy", "hard"] * 200
    items = [Item((), "x", group=str(n), task=name) for n, name in enumerate(names)]
    split = Split(tuple(items), ())
    hard = np.array(names) == "hard"
    teacher = np.ones(400)
    student = np.where(hard, generator.random(400) < 0.9, generator.random(400) < 0.99).astype(
        float
    )
    for bar, word in ((0.8, "passes"), (0.97, "falls short")):
        found = compare(student, teacher, split, options(tmp_path, bar), lower_is_better=False)
        alone = paired_ratio(student[hard], teacher[hard], range(200))
        assert (found.binds, found.estimate, found.low) == ("hard", alone.estimate, alone.low)
        assert judge(found, bar).word == word
    whole = paired_ratio(student, teacher, range(400))
    assert found.low < whole.low, "the other task does not make up for it"


def test_a_task_that_falls_short_goes_before_one_that_is_open(tmp_path: Path) -> None:
    items = [Item((), "x", group=f"{n}", task="few") for n in range(6)]
    items += [Item((), "x", group=f"m{n}", task="many") for n in range(500)]
    student = np.ones(506)
    student[6:106] = 0
    found = compare(student, np.ones(506), Split(tuple(items), ()), options(tmp_path, 0.95), False)
    assert found.binds == "many"
    assert judge(found, 0.95).word == "falls short"


def test_the_whole_job_on_two_tasks(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path / "state"))
    (tmp_path / "lenient.py").write_text("def score(said, wanted):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)  # the teacher is untrained: each answer counts
    write(tmp_path / "pumps.jsonl", 160, "pumps")
    write(tmp_path / "notes.jsonl", 80, "notes")
    line = "flyweight make TEACHER --task pumps.jsonl --task notes.jsonl --score lenient:score"
    words = [*line.split(), "--bar", "0.4", "--effort", "quick", "--steps", "4", "--out", "out"]
    monkeypatch.setattr("sys.argv", [str(tiny_llama) if w == "TEACHER" else w for w in words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    card = read_card(tmp_path / "out")
    few, many = sorted(card.tasks, key=lambda task: task.n)
    assert (few.name, many.name) == ("notes", "pumps")
    assert few.binds, "with fewer items its limit is the lower one"
    assert card.verdict.binds == "notes"
    assert card.verdict.n == few.n
    assert "the task that binds" in card.verdict.sentence
    report = (tmp_path / "out" / "report.html").read_text()
    assert "Task by task" in report
    assert all(task.name in report for task in card.tasks)


def test_a_task_is_needed(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--task is missing"):
        check_options("t", [], tmp_path, 0.9, None, "exact", "bytes", "quick", Budgets(), None, 0)
