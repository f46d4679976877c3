"""What is known of a machine is kept for the next run, and read with care."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from flyweight.errors import OptionError
from flyweight.make.course import Course, PastCourse
from flyweight.make.machine import FORMAT, KEPT, Machine, find_machine, remember, this_machine
from flyweight.make.rates import Work

COURSE = PastCourse("exact", 0.9, 300, Course((1.0, 0.125), (3, 0), 0))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path))
    return tmp_path


def write(path: Path, **changes: Any) -> Path:
    """A file of records with some of it changed."""
    whole = {"format": FORMAT, "jobs": 2, "speed": 1.0, "records": {}, "courses": []}
    path.write_text(json.dumps(whole | changes))
    return path


def test_what_is_remembered_is_there_for_the_next_run(state: Path) -> None:
    assert this_machine().jobs == 0
    remember([(Work("rank", 2, 1e9), 3.0), (Work("rank", 1, 1e9), 1.0)], COURSE)
    remember([])  # nothing was done: no job
    remember([(Work("pack", 1, 1e9), 1.0)])  # a job that was broken off has no course
    machine = this_machine()
    assert machine.jobs == 1
    assert machine.records["rank"] == [(2.0, 1e9, 3.0), (1.0, 1e9, 1.0)]
    assert machine.courses == [COURSE]
    [file] = (state / "machines").iterdir()
    assert find_machine(str(file)).records == machine.records


def test_the_oldest_are_forgotten() -> None:
    machine = Machine("m")
    for number in range(2 * KEPT):
        machine.learn([(Work("rank", number, 1.0), 1.0)])
    assert [number for number, _, _ in machine.records["rank"]] == list(range(KEPT, 2 * KEPT))


def test_memory_and_disk_are_corrected_by_what_was_taken() -> None:
    machine = Machine("m")
    assert machine.factor("memory") == 1
    for foretold, taken in ((1e9, 2e9), (2e9, 4e9), (1e9, 50e9)):  # something else was at work once
        machine.learn([(Work("memory", foretold, 0.0), taken)])
    assert machine.factor("memory") == pytest.approx(2)
    assert machine.factor("disk") == 1


def test_named_machines_and_those_that_are_not() -> None:
    work = Work("distil", 100, 1e15)
    names = ("h100", "a100-80", "laptop")
    seconds = [find_machine(name).rates().seconds(work) for name in names]
    assert seconds == sorted(seconds)
    packing = Work("pack", 1, 1e9)  # an accelerator packs no faster than its processor
    h100, a100 = (find_machine(name).rates().seconds(packing) for name in names[:2])
    assert h100 == a100
    with pytest.raises(OptionError, match=r"no such machine.*laptop"):
        find_machine("abacus")


@pytest.mark.parametrize("text", ["", "[]", f'{{"format": {FORMAT}, "jobs": 1}}', '"x"'])
def test_a_broken_file_of_records_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(OptionError, match="not a machine's records"):
        find_machine(str(path))


@pytest.mark.parametrize(
    "changes",
    [
        {"speed": 0},
        {"records": {"rank": [[1, 2]]}},
        {"courses": [{"score": "exact"}]},
        {"courses": [asdict(COURSE) | {"course": {"trained": [2], "widths": [1], "chosen": 0}}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="not a machine's records"):
        find_machine(str(write(tmp_path / "other.json", **changes)))


def test_records_of_kinds_that_are_gone_are_left_out(tmp_path: Path) -> None:
    records = {"gone": [[1, 1, 1]], "rank": [[1, 2, 3]]}
    assert set(find_machine(str(write(tmp_path / "m.json", records=records))).records) == {"rank"}


def test_records_of_an_older_format_are_left_out(tmp_path: Path) -> None:
    """They were sums over the stages of a kind: no stage's own seconds can be had from them."""
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"jobs": 9, "speed": 1.0, "records": {"rank": [[1, 2, 3]]}}))
    machine = find_machine(str(path))
    assert (machine.jobs, machine.records) == (0, {})
