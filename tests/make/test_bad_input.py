"""Bad input through the command line: status 2, one line that helps, and nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flyweight import cli
from flyweight.anatomy import families
from flyweight.folder import MARK

Run = Callable[..., str]
ENOUGH = 700  # items of which dev and test each get enough for a verdict, so that nothing is said


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder, where the output would go."""
    place = tmp_path / "place"
    place.mkdir()
    return place


@pytest.fixture
def refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs a command that must be refused, and returns its one line, without the name."""
    before = None

    def run(*arguments: object) -> str:
        nonlocal before
        before = _listing(place)
        monkeypatch.setattr(sys, "argv", ["flyweight", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capfd.readouterr().err
        assert stopped.value.code == 2, said
        assert "Traceback" not in said
        [line] = [line for line in said.splitlines() if not _progress(line)]
        assert line.startswith("flyweight: ")
        return line.removeprefix("flyweight: ")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FLYWEIGHT_STATE", str(place / "state"))
    yield run
    assert _listing(place) == before


def _progress(line: str) -> bool:
    """Bars and notes of work that was begun stand on stderr as well."""
    return not line.startswith("flyweight") and ("━" in line or line.startswith("Packing"))


def _listing(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def write_task(path: Path, *records: dict[str, Any] | str, count: int = ENOUGH) -> Path:
    """A task of `count` good items, with `records` on the lines after them."""
    good = [{"prompt": f"pump {i} is leaking", "answer": f"pump {i}"} for i in range(count)]
    lines = [r if isinstance(r, str) else json.dumps(r) for r in [*good, *records]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return write_task(tmp_path / "task.jsonl")


@pytest.fixture
def teacher(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of the tiny teacher, to be broken."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "teacher"))


# ------------------------------------------------------------------ the teacher


def test_a_missing_teacher(refused: Run, task: Path, place: Path) -> None:
    line = refused("make", "./absent", "--task", task, "--out", place / "out")
    assert "./absent: no such folder" in line


def test_a_hub_name_that_cannot_be_reached_says_how_to_download_it(
    refused: Run, task: Path, place: Path
) -> None:
    line = refused("make", "nobody/nothing-here", "--task", task, "--out", place / "out")
    assert "hf download nobody/nothing-here" in line


def drop_weights(teacher: Path) -> None:
    (teacher / "model.safetensors").unlink()


def cut_weights_short(teacher: Path) -> None:
    file = teacher / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def drop_a_tensor(teacher: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(teacher / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, teacher / "model.safetensors", {"format": "pt"})


def drop_config(teacher: Path) -> None:
    (teacher / "config.json").unlink()


def break_config(teacher: Path) -> None:
    (teacher / "config.json").write_text("{", encoding="utf-8")


def drop_tokenizer(teacher: Path) -> None:
    for file in teacher.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (drop_weights, "safetensors"),
        (cut_weights_short, "model.safetensors"),
        (drop_a_tensor, "up_proj"),
        (drop_config, "config.json"),
        (break_config, "config.json"),
        (drop_tokenizer, "tokenizer"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_unreadable_teacher(
    refused: Run,
    teacher: Path,
    task: Path,
    place: Path,
    damage: Callable[[Path], None],
    named: str,
) -> None:
    damage(teacher)
    line = refused("make", teacher, "--task", task, "--out", place / "out")
    assert str(teacher) in line
    assert named in line


def test_a_model_without_a_tokenizer_is_not_packed(refused: Run, teacher: Path) -> None:
    drop_tokenizer(teacher)
    assert "Add tokenizer.json" in refused("pack", teacher)


def test_pickled_weights(refused: Run, teacher: Path, task: Path, place: Path) -> None:
    (teacher / "model.safetensors").rename(teacher / "pytorch_model.bin")
    assert "pickle" in refused("make", teacher, "--task", task, "--out", place / "out")


def test_an_unsupported_architecture_names_those_that_are_supported(
    refused: Run, teacher: Path, task: Path, place: Path
) -> None:
    config = json.loads((teacher / "config.json").read_text())
    for other in ("gpt2", "no-such-architecture"):
        config["model_type"] = other
        (teacher / "config.json").write_text(json.dumps(config))
        line = refused("make", teacher, "--task", task, "--out", place / "out")
        assert other in line
        assert all(name in line for family in families() for name in family.model_types)


def test_a_teacher_that_scores_nothing(
    refused: Run, tiny_llama: Path, task: Path, place: Path
) -> None:
    line = refused("make", tiny_llama, "--task", task, "--out", place / "out", "--steps", 1)
    assert "the teacher scores 0" in line


# ------------------------------------------------------------------ the task


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ("{not json", "not valid JSON"),
        ('["a list"]', "a JSON object is wanted"),
        ({"answer": "but no prompt"}, "neither prompt nor messages"),
        ({"prompt": "", "answer": "x"}, "prompt is empty"),
        ({"prompt": 3, "answer": "x"}, "prompt must be text"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "wizard"),
        ('{"prompt": "x", "answer": NaN}', "NaN"),
        ('{"prompt": "x", "answer": "\\ud800"}', "surrogate"),
    ],
)
def test_a_broken_line_of_the_task_is_named(
    refused: Run, tiny_llama: Path, tmp_path: Path, place: Path, record: Any, named: str
) -> None:
    task = write_task(tmp_path / "broken.jsonl", record)
    line = refused("make", tiny_llama, "--task", task, "--out", place / "out")
    assert f"broken.jsonl, line {ENOUGH + 1}" in line
    assert named in line


def test_a_missing_task(refused: Run, tiny_llama: Path, tmp_path: Path, place: Path) -> None:
    absent = tmp_path / "absent.jsonl"
    line = refused("make", tiny_llama, "--task", absent, "--out", place / "out")
    assert "absent.jsonl: no such file" in line


def test_an_item_longer_than_the_teachers_context(
    refused: Run, tiny_llama: Path, tmp_path: Path, place: Path
) -> None:
    task = write_task(tmp_path / "long.jsonl", {"prompt": "x " * 600, "answer": "x"})
    line = refused("make", tiny_llama, "--task", task, "--out", place / "out")
    assert f"line {ENOUGH + 1}" in line
    assert "context of 512" in line


def test_where_no_teacher_writes_answers_a_missing_one_is_refused(
    refused: Run, tiny_llama: Path, tmp_path: Path, place: Path
) -> None:
    parts = [
        json.dumps({"prompt": f"{split} {i}", "split": split})
        for split in ("train", "dev", "test")
        for i in range(2)
    ]
    task = write_task(tmp_path / "open.jsonl", *parts, count=0)
    line = refused("distill", tiny_llama, tiny_llama, place / "out", "--data", task)
    assert "open.jsonl, line 1" in line
    assert "no answer" in line
    assert "no answer" in refused("eval", tiny_llama, "--task", task)


# ------------------------------------------------------------------ the options


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--bar", "0", "0.0"),
        ("--bar", "1.5", "1.5"),
        ("--bar", "-0.1", "-0.1"),
        ("--bar", "nan", "nan"),
        ("--bar-absolute", "2", "2.0"),
        ("--score", "beauty", "exact, choice, json"),
        ("--score", "no_such_module:function", "no_such_module"),
        ("--by", "colour", "bytes, latency or memory"),
        ("--steps", "0", "at least 1"),
        ("--seed", "-1", "from 0 on"),
        ("--seed", "4294967296", "below 2^32"),
    ],
)
def test_an_option_out_of_range(
    refused: Run,
    tiny_llama: Path,
    task: Path,
    place: Path,
    option: str,
    value: str,
    named: str,
) -> None:
    line = refused("make", tiny_llama, "--task", task, "--out", place / "out", option, value)
    assert option in line
    assert named in line


def test_an_absolute_bar_does_not_fit_likelihood(
    refused: Run, tiny_llama: Path, task: Path, place: Path
) -> None:
    options = ("--score", "likelihood", "--bar-absolute", "0.5")
    line = refused("make", tiny_llama, "--task", task, "--out", place / "out", *options)
    assert "--bar-absolute" in line


# ------------------------------------------------------------------ the place


@pytest.mark.parametrize("verb", ["make", "prune", "distill"])
def test_a_foreign_folder_stays_as_it_is(
    refused: Run, tiny_llama: Path, task: Path, place: Path, verb: str
) -> None:
    foreign = place / "thesis"
    foreign.mkdir()
    (foreign / "chapter-1.txt").write_text("years of work")
    arguments = {
        "make": (tiny_llama, "--task", task, "--out", foreign),
        "prune": (tiny_llama, foreign, "--task", task, "--layers", "1"),
        "distill": (tiny_llama, tiny_llama, foreign, "--data", task),
    }[verb]
    assert "did not write" in refused(verb, *arguments)


@pytest.mark.parametrize("verb", ["make", "prune", "distill"])
def test_what_is_read_is_not_written(
    refused: Run, tiny_llama: Path, task: Path, place: Path, verb: str
) -> None:
    teacher = Path(shutil.copytree(tiny_llama, place / "teacher"))
    (teacher / MARK).touch()  # as if it were a student of an earlier job
    for out in (teacher, teacher / "out"):
        arguments = {
            "make": (teacher, "--task", task, "--out", out),
            "prune": (teacher, out, "--task", task, "--layers", "1"),
            "distill": (tiny_llama, teacher, out, "--data", task),
        }[verb]
        assert f"{teacher}, which is read" in refused(verb, *arguments)


def test_a_place_that_is_a_file_or_lies_under_one(
    refused: Run, tiny_llama: Path, task: Path, place: Path
) -> None:
    file = place / "notes.txt"
    file.write_text("mine")
    assert "is a file" in refused("make", tiny_llama, "--task", task, "--out", file)
    under = refused("make", tiny_llama, "--task", task, "--out", file / "out")
    assert "notes.txt" in under


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of 64 kB, mounted in `place`."""
    disk = place / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root on Linux")
    if (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_too_small_a_disk_is_refused_before_anything_runs(
    refused: Run, tiny_llama: Path, task: Path, small_disk: Path
) -> None:
    line = refused("make", tiny_llama, "--task", task, "--out", small_disk / "out")
    assert "MB free" in line
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_runs_full_leaves_nothing_half_written(
    refused: Run, tiny_llama: Path, task: Path, small_disk: Path
) -> None:
    shape = ("--layers", 1, "--hidden", 64)
    line = refused("prune", tiny_llama, small_disk / "out", "--task", task, *shape)
    assert "ran full" in line or "MB free" in line
    assert list(small_disk.iterdir()) == []


# ------------------------------------------------------------------ the real command


def test_the_installed_command_does_the_same(tiny_llama: Path, task: Path, place: Path) -> None:
    command = [sys.executable, "-m", "flyweight", "make", str(tiny_llama)]
    command += ["--task", str(task), "--out", str(place / "out"), "--bar", "1.2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    [line] = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("flyweight: --bar is 1.2")
    assert list(place.iterdir()) == []
