"""Energy of a job over several processes: kept, added up, and entered once."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from flyweight.energy.kept import KeptMeter


def spin(seconds: float) -> None:
    since = time.thread_time()
    while time.thread_time() - since < seconds:
        pass


def test_what_a_killed_process_kept_is_added_and_entered_by_the_next(tmp_path: Path) -> None:
    file = tmp_path / "energy.json"
    first = KeptMeter(file)
    spin(0.1)
    first.keep()  # and then it is killed: nothing was entered
    kept = json.loads(file.read_text())["taken"]
    assert kept["modelled"] + kept["counted"] > 0
    second = KeptMeter(file)
    spin(0.05)
    entered = second.unentered
    assert entered.whole > kept["modelled"] + kept["counted"]
    second.enter(entered)
    third = KeptMeter(file)
    spin(0.05)
    assert 0 < third.unentered.whole < third.whole.whole
    assert third.whole.whole > entered.whole


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"taken": {"counted": "x"}, "entered": {}}'])
def test_a_file_that_makes_no_sense_is_begun_anew(tmp_path: Path, text: str) -> None:
    file = tmp_path / "energy.json"
    file.write_text(text)
    assert KeptMeter(file).before.whole == 0


def test_joules_of_a_counter_that_is_gone_still_make_a_figure(tmp_path: Path) -> None:
    file = tmp_path / "energy.json"
    part = {"counted": 5 * 10**9, "modelled": 0, "on": 10**9}
    file.write_text(json.dumps({"taken": part, "entered": part, "bounds": [1e9, 5e9, 9e9]}))
    found = KeptMeter(file)
    joules = found.meter.joules(found.before)
    assert joules.value == pytest.approx(5.0)
    assert joules.low < 1.1  # what was not sure when it was counted is not sure now
    assert joules.high > 8.9
    assert joules.kind == "modelled"
