"""One run of `write-data`: read, try the ways, collect what is kept, write the file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

from flyweight.checkpoint import Checkpoint, open_checkpoint
from flyweight.errors import FlyweightError, FolderError, OptionError, TaskError, was_interrupted
from flyweight.folder import disk_errors
from flyweight.make.sieve import Sieve
from flyweight.make.store import Store, open_store, work_folder
from flyweight.make.tries import CHUNK, Tries
from flyweight.make.written_file import save, say_outcome
from flyweight.progress import bar, say
from flyweight.tasks.encode import encode_items
from flyweight.tasks.items import Task
from flyweight.tasks.leaks import check_leakage
from flyweight.tasks.read import read_task, unit_of
from flyweight.tasks.score import Scorer, scorer

WAYS = ("own", "continued", "examples", "taught")
MOST_TRIES = 50  # for each item that is wanted


@dataclass(frozen=True)
class Request:
    """What was asked for; see `write_data`."""

    teacher: str
    out: Path
    task: Path
    items: int
    seed: int
    temperature: float
    way: str
    score: str


def write(request: Request) -> Path:
    """Write the file as asked, or go on with it; see `write_data`."""
    _check(request)
    scoring, source = scorer(request.score), open_checkpoint(request.teacher)
    if not scoring.needs_generation:
        raise OptionError(f"--score {request.score} compares no answers. Use another score.")
    source.check_declared()
    source.gguf_map.metadata(source.config)  # refused now, not when it is packed
    task = read_task(request.task)
    name, unit = request.task.name, unit_of(request.task)
    every = [item for split in task.splits.values() for item in split]
    encode_items(source.tokenizer(), every, name, source.context)  # as above: each is to fit
    for held_out in (task.test, task.dev):
        check_leakage(task.train, held_out, name, name, unit)
    with disk_errors(request.out):
        request.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with open_store(request.out) as store:
        store.journal.start(vars(request), {})
        try:
            Writing(request, source, task, scoring, store).run()
        except BaseException as error:
            stopped = was_interrupted(error)
            if isinstance(error, FlyweightError) and store.is_new and not store.seconds:
                store.discard()  # nothing is known yet that would be gone on from
                raise
            store.journal.write("interrupted" if stopped else "failed", error=str(error))
            if stopped:
                say(f"Stopped. What was done is kept; the same command goes on from {store.root}.")
            raise
        store.journal.write("written")
    return request.out


def _check(request: Request) -> None:
    out = request.out
    if request.items < 1:
        raise OptionError(f"--items is {request.items}: give 1 or more.")
    if not 0 <= request.seed < 2**32:
        raise OptionError(f"--seed is {request.seed}: give a whole number from 0 on, below 2^32.")
    if not 0 < request.temperature <= 2:
        raise OptionError(f"--temperature is {request.temperature}: give more than 0, at most 2.")
    if request.way not in ("best", *WAYS):
        raise OptionError(f"--way {request.way}: use best, {', '.join(WAYS)}.")
    if out.suffix.lower() == ".parquet":
        raise OptionError(f"{out}: the file is JSONL. Give it a name in .jsonl.")
    if out.resolve() == request.task.resolve():
        raise FolderError(f"{out} is the task, which is read. Choose another name.")
    if out.is_dir():
        raise FolderError(f"{out} is a folder. Give the name of a file to write.")
    if out.exists() and not work_folder(out).exists():
        raise FolderError(f"{out} was not written by Flyweight. Choose another name.")


class Writing:
    """A teacher, the items that there are, and the stages of writing more."""

    def __init__(
        self, request: Request, source: Checkpoint, task: Task, scoring: Scorer, store: Store
    ) -> None:
        self.request, self.task = request, task
        self.tries = Tries(source, task, scoring, store, request.seed, request.temperature)

    def run(self) -> None:
        """From nothing, or from what is known, to the file."""
        with self.tries.writer:
            sieve, way, tries = self._collect()
        if not sieve.kept:
            raise TaskError(
                f"{self.request.task.name}: of {tries} tries of the teacher none is of use "
                f"({_listed(sieve)}). Give more train items, or another --way or --temperature."
            )
        lost = save(self.request, self.task, self.tries.own_answers, sieve.kept)
        say_outcome(self.request, sieve, way, tries, lost, self.tries.threshold[1])

    def _collect(self) -> tuple[Sieve, str, int]:
        """The sieve with the items that are wanted, how they were drawn, and how often."""
        wanted, way, tries = self.request.items, self.way, 0
        sieve = self._sieve()
        with bar("Teacher writes items", wanted) as running:
            for number in count():
                chunk = self.tries.chunk(way, number)
                for written in chunk:
                    if len(sieve.kept) < wanted:
                        running.advance(sieve.take(written))
                        tries += 1
                running.note(f"{len(sieve.kept) / max(1, tries):.0%} of {tries} tries kept")
                done = len(sieve.kept) >= wanted or self._hopeless(tries, len(sieve.kept))
                if done or not chunk:
                    break
        return sieve, way, tries

    def _hopeless(self, tries: int, kept: int) -> bool:
        return tries >= 10 * CHUNK and kept * MOST_TRIES < tries

    def _sieve(self) -> Sieve:
        return Sieve(self.task.train, self.task.dev + self.task.test, self.tries.threshold[0])

    @cached_property
    def way(self) -> str:
        """The way of which most tries of a first chunk survive."""
        if self.request.way == "taught" and not self.tries.writer.teachable:
            raise OptionError("--way taught: the teacher is too large to teach a copy. Use best.")
        if self.request.way != "best":
            return self.request.way
        survive = {}
        for way in WAYS:
            if way == "taught" and not self.tries.writer.teachable:
                continue
            sieve = self._sieve()
            survive[way] = sum(map(sieve.take, self.tries.chunk(way, 0)))
        best = max(survive, key=lambda way: survive[way])
        told = ", ".join(f"{way} {kept}" for way, kept in survive.items())
        say(f"Prompts are drawn by: {best} (of {CHUNK} tries each, kept: {told}).")
        return best


def _listed(sieve: Sieve) -> str:
    return ", ".join(f"{count} {name}" for name, count in sieve.dropped.most_common())
