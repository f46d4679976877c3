"""The ledger: what every answer and every job on this computer took, a line each, in SQLite.

It lies in the user's state folder (FLYWEIGHT_STATE overrides). A line is committed before the end
of its answer is sent, so that a kill loses nothing but what was in flight, and what a full disk or
another writer held back. Several processes may write at once.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Self

from flyweight.errors import FolderError, NoSpace
from flyweight.folder import state_folder
from flyweight.progress import say
from flyweight.sticker_card import Boundaries

Kind = Literal["answer", "make", "idle"]
By = Literal["day", "model", "key"]
_FORMAT = 1
_WAIT = 0.25  # seconds for another process's line: then an answer's is held back
_PATIENCE = 40  # times that whoever is in no hurry waits so long
_KEPT = 100_000  # lines that are held back while the disk is full
_RETRY = 5.0  # seconds between tries

_TABLE = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,            -- seconds since 1970, UTC
    kind TEXT NOT NULL,          -- answer, make, or idle (of a service: what no answer took)
    model TEXT NOT NULL,
    key TEXT NOT NULL,           -- of whose key; empty: nobody's
    tokens_read INTEGER NOT NULL,
    tokens_reused INTEGER NOT NULL,
    tokens_written INTEGER NOT NULL,
    seconds REAL NOT NULL,
    source TEXT NOT NULL,
    constants TEXT NOT NULL,
    chip REAL, chip_low REAL, chip_high REAL,            -- joules
    computer REAL, computer_low REAL, computer_high REAL,
    facility REAL, facility_low REAL, facility_high REAL
);
CREATE INDEX IF NOT EXISTS by_time ON entries (at);
"""


@dataclass(frozen=True)
class Columns:
    """Joules at each boundary with their ranges, as columns."""

    chip: float
    chip_low: float
    chip_high: float
    computer: float
    computer_low: float
    computer_high: float
    facility: float
    facility_low: float
    facility_high: float


@dataclass(frozen=True)
class Entry(Columns):
    """One line; `at` in seconds since 1970."""

    at: float
    kind: Kind
    model: str
    key: str
    tokens_read: int
    tokens_reused: int
    tokens_written: int
    seconds: float
    source: str
    constants: str


@dataclass(frozen=True)
class Used(Columns):
    """The sum of lines of one kind under one label."""

    label: str
    kind: Kind
    count: int
    tokens_read: float
    tokens_reused: float
    tokens_written: float
    seconds: float
    sources: str


_LABELS: dict[By, str] = {
    "day": "DATE(at, 'unixepoch', 'localtime')",
    "model": "model",
    "key": "key",
}
_COLUMNS = ", ".join(each.name for each in fields(Entry))
_INSERT = f"INSERT INTO entries ({_COLUMNS}) VALUES ({', '.join('?' * len(fields(Entry)))})"


def entry(
    kind: Kind,
    model: str,
    joules: Boundaries,
    constants: str,
    *,
    key: str = "",
    read: int = 0,
    reused: int = 0,
    written: int = 0,
    seconds: float = 0.0,
) -> Entry:
    """A line of now."""
    parts = (joules.chip, joules.computer, joules.facility)
    numbers = [number for each in parts for number in (each.middle, each.low, each.high)]
    return Entry(
        *numbers,
        at=time.time(),
        kind=kind,
        model=_plain(model),
        key=_plain(key),
        tokens_read=read,
        tokens_reused=reused,
        tokens_written=written,
        seconds=seconds,
        source=joules.chip.source,
        constants=constants,
    )


def ledger_file() -> Path:
    """Where the ledger of this computer's user lies."""
    return state_folder() / "ledger.sqlite"


class Ledger:
    """A ledger, opened. Any thread may write; close it at the end.

    Raises FolderError for a file that is no ledger or cannot be written, NoSpace on a full disk.
    """

    def __init__(self, file: Path | None = None, *, read_only: bool = False) -> None:
        self.file = file or ledger_file()
        self._lock = threading.Lock()
        self.pending: list[Entry] = []  # that could not be written yet
        self._tried = 0.0
        with self._errors():
            if read_only:
                place = f"{self.file.absolute().as_uri()}?mode=ro"
                self._base = sqlite3.connect(place, uri=True, check_same_thread=False)
                self._check_format()
                return
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(
                self.file, timeout=_WAIT * _PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._base.execute("PRAGMA journal_mode = WAL")
            # a commit outlives the process without a sync; a power cut may take the last seconds
            self._base.execute("PRAGMA synchronous = NORMAL")
            if self._check_format() == 0:
                self._base.executescript(_TABLE)
                self._base.execute(f"PRAGMA user_version = {_FORMAT}")
            self._base.execute(f"PRAGMA busy_timeout = {round(_WAIT * 1000)}")

    def _check_format(self) -> int:
        """The format of the file, 0 for a new one. FolderError for one that is not known."""
        [found] = self._base.execute("PRAGMA user_version").fetchone()
        if found not in (0, _FORMAT):
            raise FolderError(
                f"{self.file} is a ledger of a newer Flyweight: update, or set FLYWEIGHT_STATE."
            )
        return found

    def add(self, *entries: Entry) -> None:
        """Write lines, all or none. Raises FolderError or NoSpace."""
        with self._lock, self._errors():
            for left in reversed(range(_PATIENCE)):
                try:
                    self._insert(entries)
                    break
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or not left:
                        raise

    def keep(self, line: Entry) -> str | None:
        """Write a line if that is possible, else hold it back and try again later; says why not.

        An answer does not fail because of a full disk; of more than _KEPT lines the oldest go.
        """
        with self._lock:
            self.pending.append(line)
            del self.pending[:-_KEPT]
            if len(self.pending) > 1 and time.monotonic() - self._tried < _RETRY:
                return None
            try:
                with self._errors():
                    self._insert(self.pending)
            except Exception as error:
                self._tried = time.monotonic()
                return str(error)
            self.pending.clear()
            return None

    def _insert(self, entries: Sequence[Entry]) -> None:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            self._base.executemany(_INSERT, [tuple(vars(each).values()) for each in entries])
            self._base.execute("COMMIT")
        except BaseException:
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")
            raise

    def joules(self, since: float) -> float:
        """Joules that answers took of the computer since a moment (seconds since 1970)."""
        with self._lock, self._errors():
            ask = "SELECT TOTAL(computer) FROM entries WHERE at >= ? AND kind = 'answer'"
            [found] = self._base.execute(ask, (since,)).fetchone()
            held = [each for each in self.pending if each.at >= since and each.kind == "answer"]
        return found + sum(each.computer for each in held)

    def sums(self, by: By, since: float = 0.0) -> list[Used]:
        """What was used since a moment, by day (of this computer's time zone), model, or key."""
        joules = ", ".join(f"TOTAL({each.name})" for each in fields(Columns))
        ask = (
            f"SELECT {joules}, {_LABELS[by]} AS label, kind, COUNT(*), TOTAL(tokens_read), "
            "TOTAL(tokens_reused), TOTAL(tokens_written), TOTAL(seconds), "
            "GROUP_CONCAT(DISTINCT source) FROM entries WHERE at >= ? "
            "GROUP BY label, kind ORDER BY label, kind"
        )
        with self._lock, self._errors():
            found = self._base.execute(ask, (since,)).fetchall()
        return [Used(*row) for row in found]

    def tokens(self, since: float) -> list[tuple[str, float, int]]:
        """Keys that asked since a moment: whose, when (to the minute), how many tokens."""
        ask = (
            "SELECT key, MAX(at), SUM(tokens_read + tokens_reused + tokens_written) FROM entries "
            "WHERE at >= ? AND key != '' GROUP BY key, CAST(at / 60 AS INTEGER) ORDER BY at"
        )
        with self._lock, self._errors():
            return self._base.execute(ask, (since,)).fetchall()

    def rows(self, since: float = 0.0) -> Iterator[Entry]:
        """All lines since a moment, oldest first."""
        with self._errors():
            ask = f"SELECT {_COLUMNS} FROM entries WHERE at >= ? ORDER BY id"
            for row in self._base.execute(ask, (since,)):
                yield Entry(*row)

    def close(self) -> None:
        """Write what is held back and close the file; says how many lines are lost, if any are."""
        with self._lock:
            if self.pending:
                try:
                    self._insert(self.pending)
                    self.pending.clear()
                except sqlite3.Error as error:
                    say(f"{len(self.pending):,} lines are lost: {self._told_of(error)}")
            self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._told_of(error) from error
        except OSError as error:
            raise FolderError(f"{self.file}: {error.strerror}. Set FLYWEIGHT_STATE.") from error

    def _told_of(self, error: sqlite3.Error) -> FolderError:
        said = str(error)
        if "full" in said:
            return NoSpace(f"{self.file}: the disk is full. Free some room.")
        if "not a database" in said or "malformed" in said:
            return FolderError(
                f"{self.file} is damaged ({said}). Move it away: a new one is begun."
            )
        if "locked" in said:
            return FolderError(f"{self.file} is held by another process. Try again.")
        return FolderError(f"{self.file}: {said}. Set FLYWEIGHT_STATE to a folder of yours.")


def _plain(name: str) -> str:
    """A name that UTF-8 can write."""
    return name.encode("utf-8", "replace").decode()


__all__ = ["By", "Entry", "Kind", "Ledger", "Used", "entry", "ledger_file"]
