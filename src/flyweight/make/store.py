"""What a job has found out so far, on disk: each stage is a folder named by the hash of its inputs.

A stage is worked out under a temporary name, sealed with the hashes of its files, and renamed. The
same inputs find it again, whichever run asks: after a kill, or with another bar. What a kill left
behind has no seal and is done again; a sealed stage is never done twice. One process at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flyweight.energy.kept import KeptMeter
from flyweight.errors import FolderError
from flyweight.folder import MARK, check_place, disk_errors, read_seal, seal, write_whole
from flyweight.make.journal import Journal
from flyweight.make.rates import Work
from flyweight.progress import watched

LOCK, WORK = "lock", ".work"
METERED = 0.9  # of the seconds: a kill loses some
ENGINES = ("flyweight", "torch", "transformers", "gguf", "xllamacpp")  # what decides results


def work_folder(out: Path) -> Path:
    """Where the stages of the model folder `out` are kept: beside it, as `out.work`."""
    out = out.absolute()
    return out.with_name(out.name + WORK)


class Store:
    """The stages of one job in `root`. Open it with `open_store`, which keeps others out."""

    def __init__(self, root: Path, journal: Journal, is_new: bool) -> None:
        self.root, self.journal = root, journal
        self.energy = KeptMeter(root / "energy.json")
        self.is_new = is_new  # this run has made the folder, and nothing was trained in it
        self.is_first_run = is_new  # all of the job is done by this process
        self._versions = {name: version(name) for name in ENGINES}
        self._whole: dict[Path, dict[str, Any]] = {}  # facts of stages whose hashes were checked
        self._taken: dict[Path, tuple[str, float]] = {}
        self._within = [0.0]  # seconds of stages made within the one that is being made
        self.fresh: list[
            tuple[Work, float]
        ] = []  # what was worked out in this run, and its seconds

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by kind, of all stages asked for; those found done count as they took."""
        total: dict[str, float] = {}
        for kind, seconds in self._taken.values():
            total[kind] = total.get(kind, 0.0) + seconds
        return total

    @property
    def is_metered_whole(self) -> bool:
        """Whether the energy of all stages asked for was metered, as far as their seconds tell.

        It was not where they were made before there was a meter, or its file was lost.
        """
        return self.energy.whole.on / 1e9 >= METERED * sum(self.seconds.values())

    def discard(self) -> None:
        """Remove the whole folder."""
        shutil.rmtree(self.root, ignore_errors=True)

    def fixed(self, name: str, value: Any) -> Any:
        """What was settled under this name when the job first ran; `value` where nothing was."""
        path = self.root / "fixed.json"
        try:
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except ValueError as error:
            raise FolderError(f"{path}: damaged ({error}). Remove {self.root}.") from error
        if name not in known:
            known[name] = value
            with disk_errors(path):
                write_whole(path, json.dumps(known))
        return known[name]

    def key(self, inputs: Mapping[str, Any]) -> str:
        """The name of these inputs (JSON values), with the versions that decide what is made."""
        told = json.dumps([self._versions, inputs], sort_keys=True, default=str)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _place(self, kind: str, inputs: Mapping[str, Any], label: str) -> Path:
        return self.root / "-".join(part for part in (kind, label, self.key(inputs)) if part)

    def stage(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], object],
        label: str = "",
        *,
        work: Work | None = None,
    ) -> Path:
        """The sealed folder of this stage; `make(folder)` fills it where it is not there yet.

        `label` (a size, say) makes the folder's name readable; it is no input. `work` says how much
        there is to do, for the next quote.
        """
        place = self._place(kind, inputs, label)
        facts = self._facts(place)
        if facts is None:
            facts = self._make(kind, place, make)
            if work is not None:
                self.fresh.append((work, float(facts["seconds"])))
        else:
            self.journal.found(kind, place.name)
        self.spent(kind, place, float(facts["seconds"]))
        return place

    def grown(self, kind: str, inputs: Mapping[str, Any], label: str = "") -> Path:
        """The folder of a stage that grows by itself (a training); what is in it seals itself."""
        place = self._place(kind, inputs, label)
        with disk_errors(place):
            place.mkdir(exist_ok=True)
        self.is_new = False
        return place

    def spent(
        self, kind: str, place: Path, seconds: float, *, work: Work | None = None, now: float = 0.0
    ) -> None:
        """Say what a stage that grows has taken in all, and `now`, in this run, for `work`."""
        self._taken[place] = (kind, seconds)
        self._within[-1] += now
        if work is not None:
            self.fresh.append((work, now))

    def _facts(self, place: Path) -> dict[str, Any] | None:
        """The facts of a whole stage; its hashes are checked once a run."""
        if place not in self._whole:
            facts = read_seal(place)
            if facts is None:
                return None
            self._whole[place] = facts
        return self._whole[place]

    def _make(self, kind: str, place: Path, make: Callable[[Path], object]) -> dict[str, Any]:
        scratch = self.root / f".{place.name}"
        with disk_errors(self.root):
            for remains in (scratch, place):
                shutil.rmtree(remains, ignore_errors=True)
            scratch.mkdir()
            self.journal.began(kind, place.name)
            started = time.perf_counter()
            self._within.append(0.0)
            try:
                make(scratch)
                whole = time.perf_counter() - started
                facts = {"kind": kind, "seconds": whole - self._within.pop()}
                self._within[-1] += whole
                seal(scratch, **facts)
                scratch.rename(place)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        self._whole[place] = facts
        self.energy.keep()
        self.journal.ended(kind, place.name, facts["seconds"])
        return facts


@contextmanager
def open_store(out: Path) -> Iterator[Store]:
    """The store beside `out`, for this process alone.

    Raises FolderError where another process is at work on it, or where the place is not ours.
    """
    root = work_folder(out)
    is_new = not root.exists()
    if not is_new and not (root / MARK).exists():
        check_place(root)
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        (root / MARK).touch()
        lock = FileLock(root / LOCK)
        journal = Journal(root)
        try:
            lock.acquire(timeout=1)  # `status` holds it for an instant
        except Timeout:
            raise FolderError(
                f"{out} is being made by another process ({journal.last_process()}). Wait for it, "
                "or choose another --out."
            ) from None
        try:
            store = Store(root, journal, is_new)

            def moved(title: str, done: float, total: float | None) -> None:
                journal.moved(title, done, total)
                store.energy.moved()

            try:
                with watched(moved):
                    yield store
            finally:
                if root.exists():  # a job that had no chance leaves nothing
                    store.energy.keep()
        finally:
            lock.release()


def is_locked(root: Path) -> bool:
    """Whether a process is at work in this work folder."""
    lock = FileLock(root / LOCK)
    try:
        with lock.acquire(timeout=0):
            return False
    except (Timeout, OSError):  # a folder that cannot be written is nobody's work
        return (root / LOCK).exists() and os.access(root, os.W_OK)
