"""`flyweight status`: what the journal says, of a job that runs, was stopped, or is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sample_card import sample_card

import flyweight
from flyweight.errors import FolderError
from flyweight.folder import MARK, write_card
from flyweight.make.progress_report import read_status
from flyweight.make.store import Store, open_store, work_folder

QUOTE = {"stages": [{"name": "rank", "quoted": 10.0}, {"name": "distil", "quoted": 100.0}]}


def begin(store: Store) -> None:
    store.journal.start({"bar": 0.95}, QUOTE)
    store.journal.began("rank", "rank-a")
    store.journal.ended("rank", "rank-a", 12.0)
    store.journal.began("distil", "distil-1M")


def test_a_running_job_shows_what_it_does_and_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with open_store(out) as store:
        begin(store)
        store.journal.moved("Distilling 1M [b]", 30, 100)
        flyweight.status(out)
        assert "Now: Distilling 1M [b] 30 of 100" in capsys.readouterr().out
        found = read_status(out)
        assert found["state"] == "running"
        assert found["now"] == {"title": "Distilling 1M [b]", "done": 30, "total": 100}
        assert found["taken"] == 12.0
        assert found["remaining"] == 100.0  # of rank nothing, it is done
    stopped = read_status(out)
    assert (stopped["state"], stopped["now"], stopped["process"]) == ("stopped", None, None)


def test_a_training_that_went_on_counts_its_whole_time_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for seconds in (40.0, 70.0):  # the second line includes the first run's seconds
        with open_store(out) as store:
            store.journal.start({}, QUOTE)
            store.journal.ended("distil", "distil-1M", seconds)
    assert read_status(out)["taken"] == 70.0


def test_what_other_wishes_took_does_not_count_but_what_was_found_done_does(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with open_store(out) as store:
        begin(store)
        store.journal.ended("distil", "distil-1M", 40.0)
        store.journal.start({"bar": 0.9}, QUOTE)
        store.journal.found("rank", "rank-a")
        store.journal.ended("distil", "distil-2M", 70.0)
    assert read_status(out)["taken"] == 12.0 + 70.0


def test_a_failed_and_a_finished_job_say_how_they_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out [v2]"
    with open_store(out) as store:
        begin(store)
        store.journal.write("failed", error="the disk ran [full]")
    flyweight.status(out)
    said = capsys.readouterr().out
    assert "out [v2]: stopped" in " ".join(said.split())
    assert "in out [v2].work, last change" in " ".join(said.split())
    assert "the disk ran [full]" in said
    with open_store(out) as store:
        begin(store)
        store.journal.write("handed over", verdict="passes", sentence="It [m] keeps 98 %.")
    flyweight.status(out)
    said = capsys.readouterr().out
    assert "PASSES: It [m] keeps 98 %." in said
    assert "left of the likely course" not in said


def test_json_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with open_store(out) as store:
        begin(store)
    returned = flyweight.status(out, json=True)
    assert json.loads(capsys.readouterr().out) == returned


def test_a_folder_whose_stages_were_removed_still_has_its_verdict(tmp_path: Path) -> None:
    card = sample_card()
    (tmp_path / MARK).touch()
    write_card(tmp_path, card)
    found = read_status(tmp_path)
    assert (found["state"], found["verdict"]) == ("finished", card.verdict.sentence)


def test_where_nothing_was_run_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no job was run"):
        read_status(tmp_path / "out")
    assert not work_folder(tmp_path / "out").exists()


def test_a_folder_of_jobs_is_none_and_they_are_named(tmp_path: Path) -> None:
    for name in ("tickets", "demo"):
        with open_store(tmp_path / name) as store:
            begin(store)
    wanted = f"{tmp_path / 'demo'}, {tmp_path / 'tickets'}"
    with pytest.raises(FolderError, match="no job was run") as refused:
        read_status(tmp_path)
    assert str(refused.value).endswith(f"Give one in it: {wanted}.")
