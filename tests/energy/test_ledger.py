"""The ledger: lines that outlive a kill, many writers, a full disk, a damaged file; and budgets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.energy.budget import Budget
from flyweight.energy.ledger import Entry, Ledger, entry
from flyweight.errors import FolderError, NoSpace, OptionError
from flyweight.figure import Figure
from flyweight.sticker_card import Boundaries


def line(joules: float = 2.0, model: str = "m", key: str = "") -> Entry:
    figure = Figure(value=joules, low=joules / 2, high=joules * 2, kind="modelled", source="s")
    parts = Boundaries(chip=figure, computer=figure * 2.0, facility=figure * 3.0)
    return entry("answer", model, parts, "2026-01-01", key=key, read=3, written=4, seconds=0.5)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with Ledger(tmp_path / "new" / "ledger.sqlite") as ledger:
        told = [line(1.0), line(2.0, key="anna")]
        ledger.add(*told)
        assert list(ledger.rows()) == told
        assert ledger.joules(0.0) == pytest.approx(6.0)
        assert ledger.joules(told[1].at + 1) == 0.0


_WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_ledger import line
from flyweight.energy.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for number in range(100_000):
    ledger.add(line(number))
    print(number, flush=True)
"""


def test_a_kill_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    here = str(Path(__file__).parent)
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(file), here], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    last = -1
    for said in child.stdout:
        last = int(said)
        if last == 40:
            os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with Ledger(file) as ledger:
        written = [round(each.chip) for each in ledger.rows()]
    assert written[: last + 1] == list(range(last + 1))
    assert len(written) <= last + 2  # one may have been committed and not said


def test_threads_and_processes_write_at_once(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    with Ledger(file) as one, Ledger(file) as other:
        threads = [
            threading.Thread(target=lambda where=where: [where.add(line()) for _ in range(20)])
            for where in (one, other, one, other)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(list(one.rows())) == 80


def test_a_full_disk_holds_lines_back_and_says_so(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        [pages] = ledger._base.execute("PRAGMA page_count").fetchone()
        ledger._base.execute(f"PRAGMA max_page_count = {pages}")  # as SQLite says of a full disk
        said = None
        while said is None:
            said = ledger.keep(line(model="m" * 500))
        assert "full" in said
        held = len(ledger.pending)
        assert held
        before = ledger.joules(0.0)  # what is held back counts
        assert before == pytest.approx(4.0 * (len(list(ledger.rows())) + held))
        with pytest.raises(NoSpace):
            ledger.add(line(model="m" * 5000))
        ledger._base.execute("PRAGMA max_page_count = 1000000")
        ledger._tried = -100.0
        assert ledger.keep(line()) is None
        assert not ledger.pending
        assert ledger.joules(0.0) == pytest.approx(before + 4.0)


def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(FolderError, match="Move it away"):
        Ledger(file)
    assert file.read_bytes() == b"no database at all" * 100


@pytest.mark.parametrize(
    ("told", "joules", "period"),
    [("1kWh/day", 3.6e6, "day"), ("500 Wh per hour", 1.8e6, "hour"), ("2.5MJ/week", 2.5e6, "week")],
)
def test_budgets_are_read(told: str, joules: float, period: str) -> None:
    found = Budget.read(told)
    assert (found.joules, found.period) == (joules, period)
    assert found.told in str(found)


@pytest.mark.parametrize("told", ["", "1kWh", "0kWh/day", "-1kWh/day", "1kW/day", "1kWh/year", "x"])
def test_what_is_no_budget_is_refused(told: str) -> None:
    with pytest.raises(OptionError, match="1kWh/day"):
        Budget.read(told)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"])
@given(st.integers(1577836800, 2051222400), st.sampled_from(["hour", "day", "week", "month"]))
def test_a_moment_lies_within_its_period(zone: str, moment: int, period: str) -> None:
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        budget = Budget(1.0, period)  # type: ignore[arg-type]
        began, ends = budget.began(moment), budget.ends(moment)
        assert began <= moment < ends
        assert budget.began(ends) == ends  # the next one follows without a gap
        first = datetime.fromtimestamp(began, ZoneInfo(zone))
        assert (first.minute, first.second) == (0, 0)
        if period != "hour":  # on the wall it begins at midnight, also when clocks change
            assert first.hour == 0
        longest = {"hour": 1, "day": 25, "week": 7 * 24 + 1, "month": 31 * 24 + 1}[period]
        assert ends - began <= longest * 3600
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


def test_a_line_of_another_kind_is_not_the_budgets(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.pending = [replace(line(), kind="idle"), line()]
        assert ledger.joules(0.0) == pytest.approx(4.0)


def test_another_process_that_writes_holds_no_answer_up(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger, Ledger(tmp_path / "ledger.sqlite") as other:
        other._base.execute("BEGIN IMMEDIATE")
        since = time.monotonic()
        assert "held by another" in (ledger.keep(line()) or "")
        assert time.monotonic() - since < 5
        other._base.execute("COMMIT")
        ledger._tried = -100.0
        assert ledger.keep(line()) is None
        assert len(list(ledger.rows())) == 2


def test_a_name_that_no_file_can_hold_is_written_as_it_can(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.keep(line(model="broken \ud800 name")) is None
        assert ledger.keep(line()) is None
        assert not ledger.pending
