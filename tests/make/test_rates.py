"""A machine's speed is learned from what its jobs took."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flyweight.errors import OptionError
from flyweight.make.rates import ASSUMED, Machine, Work, find_machine, remember, this_machine


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path))
    return tmp_path


def jobs(count: int, a: float, b: float, noise: float, seed: int = 0) -> list[tuple[Work, float]]:
    """Distillations of many sizes on a machine that takes `a` a step and `b` an operation."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        work = Work("distil", float(generator.integers(100, 2000)), 10 ** generator.uniform(11, 13))
        seconds = (a * work.units + b * work.flops) * np.exp(generator.normal(0, noise))
        made.append((work, float(seconds)))
    return made


@pytest.mark.parametrize("slower", [0.1, 1.0, 12.0])
def test_after_three_jobs_the_next_is_foretold(slower: float) -> None:
    """On a machine whose two rates are off by different factors from the assumption."""
    a, b = ASSUMED["distil"][0] * slower, ASSUMED["distil"][1] * slower * 2
    known, ahead = jobs(3, a, b, 0.05), jobs(10, a, b, 0.0, seed=1)
    machine = Machine("m")
    for job in known:
        machine.learn([job])
    errors = [abs(machine.seconds(work) / seconds - 1) for work, seconds in ahead]
    assert np.median(errors) < 0.25


def test_without_records_the_assumption_speaks() -> None:
    work = Work("rank", 10, 1e12)
    a, b = ASSUMED["rank"]
    assert Machine("m").seconds(work) == pytest.approx(10 * a + 1e12 * b)
    assert Machine("m", speed=4).seconds(work) == pytest.approx((10 * a + 1e12 * b) / 4)


def test_what_is_remembered_is_there_for_the_next_run(state: Path) -> None:
    assert this_machine().jobs == 0
    remember([(Work("rank", 2, 1e9), 3.0), (Work("rank", 1, 1e9), 1.0)])
    remember([])  # nothing was done: no job
    machine = this_machine()
    assert machine.jobs == 1
    assert machine.records["rank"] == [(3.0, 2e9, 4.0)]
    [file] = (state / "machines").iterdir()
    assert find_machine(str(file)).records == machine.records


def test_memory_and_disk_are_corrected_by_what_was_taken() -> None:
    machine = Machine("m")
    assert machine.factor("memory") == 1
    for foretold, taken in ((1e9, 4e9), (2e9, 2e9)):
        machine.learn([(Work("memory", foretold, 0.0), taken)])
    assert machine.factor("memory") == pytest.approx(2)  # the geometric mean of 4 and 1
    assert machine.factor("disk") == 1


def test_named_machines_and_those_that_are_not() -> None:
    work = Work("distil", 100, 1e15)
    names = ("h100", "a100-80", "laptop")
    seconds = [find_machine(name).seconds(work) for name in names]
    assert seconds == sorted(seconds)
    packing = Work("pack", 1, 1e9)  # an accelerator packs no faster than its processor
    assert find_machine("h100").seconds(packing) == find_machine("a100-80").seconds(packing)
    with pytest.raises(OptionError, match=r"no such machine.*laptop"):
        find_machine("abacus")


@pytest.mark.parametrize("text", ["", "[]", '{"jobs": 1}', '{"jobs":1,"speed":0,"records":{}}'])
def test_a_broken_file_of_records_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(OptionError, match="not a machine's records"):
        find_machine(str(path))


def test_records_of_kinds_that_are_gone_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    records = {"gone": [[1, 1, 1]], "rank": [[1, 2, 3]]}
    path.write_text(json.dumps({"jobs": 2, "speed": 1.0, "records": records}))
    assert set(find_machine(str(path)).records) == {"rank"}
