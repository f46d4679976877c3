"""A teacher's word on a data set, on disk: written once, mapped by whoever learns from it.

A record is a folder of shards (shard.py) of packed columns (packed.py) over the wanted tokens of
consecutive rows, and `complete.json`, written last. Its name is the hash of all that decides what
is in it. A shard is a function of its own rows: what a kill, a broken disk or a lost file takes is
written again alone, to the same bits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flyweight.distill.drawn import Draw
from flyweight.distill.head import head_of
from flyweight.distill.packed import Columns, pack
from flyweight.distill.reach import Reach
from flyweight.distill.shard import Shard, open_shard, write_shard
from flyweight.distill.teacher import TITLE, laid_out, listen, said_rows
from flyweight.distill.trainer import Row
from flyweight.distill.wish import Wish, check_room
from flyweight.errors import TeacherError
from flyweight.folder import SEAL, disk_errors, write_whole
from flyweight.progress import Bar, bar, say
from flyweight.runtime.hardware import cache_folder

LOCK = "lock"


@dataclass(frozen=True)
class Record:
    """A whole record: `written` of its shards were not there before, the rest was reused."""

    place: Path
    wish: Wish
    shards: list[Shard]
    seconds: float  # of the teacher, in all
    written: int
    now: float = 0.0  # seconds of the teacher, this time

    @property
    def reach(self) -> Reach:
        """How far off it is."""
        return Reach.of([shard.facts for shard in self.shards])

    def rows(self, *, drawn: bool = False) -> list[Row]:
        """The rows with `top`, `indices` and `tail`, read from disk when they are asked for.

        `drawn`: for forward KL, `top` and `indices` with the tokens drawn from the tail in place of
        `tail` (drawn.py says what is right on average then).
        """
        found: list[Row] = []
        for part, shard in zip(self.wish.parts, self.shards, strict=True):
            rows = [self.wish.rows[place] for place in part]
            found += said_rows(rows, shard.columns, drawn=drawn)
        return found

    @property
    def size(self) -> str:
        """How much it is: tokens, what is kept of each, and bytes."""
        wish = self.wish
        size = sum(array.nbytes for shard in self.shards for array in shard.columns.values())
        besides = f" and {wish.drawn} drawn of the others" if wish.drawn else ""
        return (
            f"{wish.tokens:,} tokens, the top {wish.k} of {wish.vocabulary:,}{besides}, "
            f"{size / 1e6:,.1f} MB"
        )

    def __str__(self) -> str:
        return f"{self.size}. {self.reach}"


def records_folder() -> Path:
    """Where records are kept for the user."""
    return cache_folder() / "teachers"


def record(
    place: Path, wish: Wish, load: Callable[[], Any], *, budget: int | None = None
) -> Record:
    """The record in the folder `place`, written where it is not whole; `load()` gives the teacher.

    Raises NoSpace before anything is computed where the disk or `budget` bytes do not hold it,
    TeacherError for another teacher than was wished for. Another process at the same waits.
    """
    name = wish.name
    found = _whole(place, name, wish)
    if found is not None:
        return found
    with disk_errors(place):
        check_room(place, wish, budget)
        place.mkdir(parents=True, exist_ok=True)
        with _alone(place):
            return _whole(place, name, wish) or _write(place, name, wish, load)


def _whole(place: Path, name: str, wish: Wish) -> Record | None:
    """The record if it is complete and every shard is as it was written."""
    told = _complete(place)
    if told.get("name") != name:
        return None
    shards = list(_shards(place, name, wish))
    if [shard and shard.sha256 for shard in shards] != told["shards"]:
        return None
    return Record(place, wish, [each for each in shards if each], float(told["seconds"]), 0)


def _complete(place: Path) -> dict[str, Any]:
    """What is told of a complete record; nothing where it is not."""
    try:
        told = json.loads((place / SEAL).read_bytes())
        whole = {"name", "shards", "seconds"} <= set(told)
    except (OSError, ValueError, TypeError):
        return {}
    return told if whole else {}


def _shards(place: Path, name: str, wish: Wish) -> Iterator[Shard | None]:
    """The shards, None for each that is missing, broken or another's."""
    for number in range(len(wish.parts)):
        shard = open_shard(_path(place, number))
        mine = shard is not None and shard.facts.get("of") == [name, number]
        yield shard if mine else None


def _path(place: Path, number: int) -> Path:
    return place / f"shard-{number:05}.safetensors"


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Within it no other process writes the record."""
    lock = FileLock(place / LOCK)
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        say(f"Another process records this teacher: waiting for it ({place}).")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write(place: Path, name: str, wish: Wish, load: Callable[[], Any]) -> Record:
    """Write the shards that are not whole, then say that all are."""
    shards, seconds = list(_shards(place, name, wish)), float(_complete(place).get("seconds", 0))
    missing = [number for number, shard in enumerate(shards) if shard is None]
    parts = wish.parts
    todo = [sum(map(bool, (wish.counts[i] for i in part))) for part in parts]
    started = time.perf_counter()
    if missing:
        teacher = load()
        _check_teacher(teacher, wish)
        with bar(TITLE, sum(todo[number] for number in missing)) as running:
            for number in missing:
                facts = {"of": [name, number]}
                rows = [wish.rows[i] for i in parts[number]]
                columns, reach = _hear(teacher, rows, wish, wish.draw(number), running)
                facts |= reach.facts()
                shards[number] = write_shard(_path(place, number), columns, facts)
    now = time.perf_counter() - started
    if not seconds:  # what runs that were killed took is not known but by what they did
        seconds = now * sum(todo) / max(1, sum(todo[number] for number in missing))
    whole = [each for each in shards if each is not None]
    told = {"name": name, "shards": [each.sha256 for each in whole], "seconds": seconds}
    write_whole(place / SEAL, json.dumps(told, indent=1))
    return Record(place, wish, whole, seconds, len(missing), now)


def _check_teacher(teacher: Any, wish: Wish) -> None:
    rows = len(head_of(teacher).weight)
    if rows != wish.vocabulary:
        raise TeacherError(
            f"the teacher has a head of {rows} tokens, and a record over {wish.vocabulary} was "
            "asked for. Use the teacher's own tokenizer."
        )


def _hear(
    teacher: Any, rows: Sequence[Row], wish: Wish, draw: Draw | None, running: Bar
) -> tuple[Columns, Reach]:
    """The columns of a shard, and how far off they are."""
    reach = Reach()

    def said() -> Iterator[tuple[list[int], Columns]]:
        for places, top in listen(teacher, rows, wish.k, draw=draw):
            columns = pack(top, wish.vocabulary)
            reach.add(top, columns, wish.vocabulary)
            running.advance(len(places))
            yield places, columns

    return laid_out(rows, said()), reach


__all__ = ["Record", "record", "records_folder"]
