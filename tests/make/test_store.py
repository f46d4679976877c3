"""Stages on disk: found again by their inputs, never half taken, one process at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flyweight.errors import FolderError, NoSpace
from flyweight.folder import SEAL
from flyweight.make.rates import Work
from flyweight.make.store import is_locked, open_store, work_folder


class Maker:
    """Writes `text` and counts how often it was asked."""

    def __init__(self, text: str = "made") -> None:
        self.text, self.times = text, 0

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "result.txt").write_text(self.text)


def test_a_stage_is_made_once_for_the_same_inputs(tmp_path: Path) -> None:
    make = Maker()
    for _ in range(2):  # also by another run
        with open_store(tmp_path / "out") as store:
            for _ in range(2):
                place = store.stage("pack", {"a": 1, "b": [2]}, make, "1M")
            assert (place / "result.txt").read_text() == "made"
            assert store.stage("pack", {"a": 2, "b": [2]}, Maker("other"), "1M") != place
            assert store.stage("rank", {"a": 1, "b": [2]}, Maker("other"), "1M") != place
    assert make.times == 1


def test_seconds_count_once_by_kind_and_work_only_when_fresh(tmp_path: Path) -> None:
    work = Work("rank", 3, 1e6)
    for fresh in (1, 0):
        with open_store(tmp_path / "out") as store:
            for _ in range(3):
                store.stage("rank", {"level": 1}, Maker(), work=work)
            store.spent("distil", tmp_path / "a", 2.0)
            store.spent("distil", tmp_path / "a", 5.0)  # the same training, further on
            store.spent("distil", tmp_path / "b", 1.0)
            assert store.seconds["distil"] == 6.0
            assert 0 < store.seconds["rank"] < 5
            assert [each for each, _ in store.fresh] == [work] * fresh


def test_energy_is_whole_only_where_every_stage_was_metered(tmp_path: Path) -> None:
    def slow(folder: Path) -> None:
        time.sleep(0.5)
        Maker()(folder)

    def made() -> bool:
        with open_store(tmp_path / "out") as store:
            store.stage("pack", {"a": 1}, slow)
            return store.is_metered_whole

    assert made()
    assert made()  # what the run before was metered at is kept
    (work_folder(tmp_path / "out") / "energy.json").unlink()
    assert not made()


@pytest.mark.parametrize("harm", ["no seal", "changed", "gone"])
def test_a_stage_that_is_not_whole_is_made_again(harm: str, tmp_path: Path) -> None:
    make = Maker()
    with open_store(tmp_path / "out") as store:
        place = store.stage("pack", {}, make)
    if harm == "no seal":
        (place / SEAL).unlink()
    elif harm == "changed":
        (place / "result.txt").write_text("mad!")
    else:
        (place / "result.txt").unlink()
    with open_store(tmp_path / "out") as store:
        assert (store.stage("pack", {}, make) / "result.txt").read_text() == "made"
    assert make.times == 2


def test_what_fails_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise ValueError("no")

    with open_store(tmp_path / "out") as store:
        with pytest.raises(ValueError, match="no"):
            store.stage("pack", {}, fail)
        assert not list(store.root.rglob("half.txt"))
        assert not [path for path in store.root.iterdir() if path.is_dir()]
        make = Maker()
        store.stage("pack", {}, make)
        assert make.times == 1


def test_a_full_disk_is_said_and_leaves_nothing_half(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        with Path("/dev/full").open("w") as full:
            full.write("x" * 100_000)

    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open_store(tmp_path / "out") as store:
        with pytest.raises(NoSpace, match="ran full"):
            store.stage("pack", {}, fill)
        assert not list(store.root.rglob("half.txt"))


HOLD = """
import sys
import time
from pathlib import Path
from flyweight.make.store import open_store
with open_store(Path(sys.argv[1])) as store:
    store.journal.start({}, None)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_killed_one_locks_nobody_out(tmp_path: Path) -> None:
    out = tmp_path / "out"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_locked(work_folder(out))
        with pytest.raises(FolderError, match=f"another process.*{holder.pid}"), open_store(out):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert not is_locked(work_folder(out))
    with open_store(out) as store:
        store.stage("pack", {}, Maker())


def test_a_folder_of_somebody_else_is_not_taken(tmp_path: Path) -> None:
    root = work_folder(tmp_path / "out")
    root.mkdir()
    (root / "thesis.txt").write_text("mine")
    with pytest.raises(FolderError, match="did not write"), open_store(tmp_path / "out"):
        pass
    assert [path.name for path in root.iterdir()] == ["thesis.txt"]


def test_what_is_fixed_stays(tmp_path: Path) -> None:
    for value in (2, 8):
        with open_store(tmp_path / "out") as store:
            assert store.fixed("threads", value) == 2


def test_a_line_that_was_cut_short_is_skipped(tmp_path: Path) -> None:
    with open_store(tmp_path / "out") as store:
        store.journal.start({"bar": 0.9}, None)
        with store.journal.path.open("a") as file:
            file.write('{"event": "end')
        events: list[dict[str, Any]] = list(store.journal.events())
    assert [event["event"] for event in events] == ["start"]
    assert events[0]["pid"] == os.getpid()
    assert json.dumps(events[0]["options"]) == '{"bar": 0.9}'
