"""One run of `write-data`: read, draw, answer, sieve, write.

What takes longer than a second is a stage of a store beside the file: the teacher's GGUF, what it
says to the task's own prompts, and every CHUNK of tries. What is kept is worked out anew from them,
so that more items, or another threshold, use all that was written before.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from flyweight.checkpoint import Checkpoint, open_checkpoint
from flyweight.errors import FlyweightError, FolderError, OptionError, TaskError
from flyweight.folder import disk_errors, sha256_of
from flyweight.make.data import FREE_TOKENS, SPARE_TOKENS
from flyweight.make.drawing import Drawer, last_text, with_text
from flyweight.make.sieve import Sieve, Written, sure_enough
from flyweight.make.store import Store, open_store, work_folder
from flyweight.make.writer import Answer, Writer
from flyweight.make.written_file import save, say_outcome
from flyweight.progress import bar, say
from flyweight.tasks.encode import answer_ids, prompt_ids
from flyweight.tasks.items import Item, Task
from flyweight.tasks.leaks import check_leakage
from flyweight.tasks.read import read_task, unit_of
from flyweight.tasks.score import Scorer, scorer

WAYS = ("own", "continued", "examples", "taught")
CHUNK = 64  # tries that are kept, or lost, together
REAL = 256  # items of train, and of dev, that tell how sure the teacher is of real prompts
LONGER = 1.5  # times the longest known prompt: more is no prompt of this task
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
    for held_out in (task.test, task.dev):
        check_leakage(task.train, held_out, name, name, unit)
    with disk_errors(request.out):
        request.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with open_store(request.out) as store:
        store.journal.start(vars(request), {})
        try:
            Writing(request, source, task, scoring, store).run()
        except (FlyweightError, KeyboardInterrupt) as error:
            store.journal.write("failed", error=str(error))
            if isinstance(error, KeyboardInterrupt):
                say(f"Stopped. What was done is kept; the same command goes on from {store.root}.")
            raise
        store.journal.write("written")
    return request.out


def _check(request: Request) -> None:
    out = request.out
    if request.items < 1:
        raise OptionError(f"--items is {request.items}: give 1 or more.")
    if not 0 < request.temperature <= 2:
        raise OptionError(f"--temperature is {request.temperature}: give more than 0, at most 2.")
    if request.way not in ("best", *WAYS):
        raise OptionError(f"--way {request.way}: use best, {', '.join(WAYS)}.")
    if out.is_dir():
        raise FolderError(f"{out} is a folder. Give the name of a file to write.")
    if out.exists() and not work_folder(out).exists():
        raise FolderError(f"{out} was not written by Flyweight. Choose another name.")


class Writing:
    """A teacher, the items that there are, and the stages of writing more."""

    def __init__(
        self, request: Request, source: Checkpoint, task: Task, scoring: Scorer, store: Store
    ) -> None:
        self.request, self.source, self.task, self.store = request, source, task, store
        self.scoring, self.tokenizer = scoring, source.tokenizer()
        self.drawer = Drawer(self.tokenizer, task.train)
        self.writer = Writer(source, self.drawer, store, request.seed)

    def run(self) -> None:
        """From nothing, or from what is known, to the file."""
        with self.writer:
            sieve, way, tries = self._collect()
        if not sieve.kept:
            raise TaskError(
                f"{self.request.task.name}: of {tries} tries of the teacher none is of use "
                f"({_listed(sieve)}). Give more train items, or another --way or --temperature."
            )
        lost = save(self.request, self.task, self._own_answers, sieve.kept)
        say_outcome(self.request, sieve, way, tries, lost, self.threshold[1])

    def _collect(self) -> tuple[Sieve, str, int]:
        """The sieve with the items that are wanted, how they were drawn, and how often."""
        wanted, way, tries = self.request.items, self.way, 0
        sieve = self._sieve()
        with bar("Teacher writes items", wanted) as running:
            for number in count():
                chunk = self.tries(way, number)
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
        return Sieve(self.task.train, self.held_out, self.threshold[0])

    @property
    def held_out(self) -> tuple[Item, ...]:
        return self.task.dev + self.task.test

    # ------------------------------------------------------------------ what is real

    @cached_property
    def _real(self) -> list[Item]:
        """The task's own prompts that the teacher is asked: all of train that lack an answer."""
        train = [item for item in self.task.train if item.answer is not None]
        missing = [item for item in self.task.train if item.answer is None]
        return [*missing, *train[:REAL], *self.task.dev[:REAL]]

    @cached_property
    def _real_answers(self) -> list[Answer]:
        """What the teacher says to them."""
        prompts = [prompt_ids(self.tokenizer, item.messages) for item in self._real]

        def make(folder: Path) -> None:
            with bar("Teacher answers the task's prompts", len(prompts)) as running:
                said = self.writer.answers(prompts, self.answer_limit, running.advance)
            _dump(folder / "answers.jsonl", [vars(each) for each in said])

        folder = self.store.stage("real", self._inputs() | {"items": len(prompts)}, make)
        return [Answer(**each) for each in _load(folder / "answers.jsonl")]

    @property
    def _own_answers(self) -> dict[int, str | None]:
        """By place in the task's file: the teacher's answer to a train item that has none."""
        missing = [item for item in self.task.train if item.answer is None]
        pairs = zip(missing, self._real_answers[: len(missing)], strict=True)
        return {item.line: said.text if said.ended else None for item, said in pairs}

    @cached_property
    def threshold(self) -> tuple[float, str]:
        """How sure an answer must be, and how that was found: on train and dev, never on test."""
        judged = len(self._real) - len(self.task.dev[:REAL])  # dev alone tells right from wrong
        right = [
            None
            if place < judged or item.answer is None
            else bool(self.scoring(said.text, item.answer) >= 0.5)
            for place, (item, said) in enumerate(zip(self._real, self._real_answers, strict=True))
        ]
        return sure_enough([said.sure for said in self._real_answers], right)

    # ------------------------------------------------------------------ what is written

    @cached_property
    def way(self) -> str:
        """The way of which most tries of a first chunk survive."""
        if self.request.way == "taught" and not self.writer.teachable:
            raise OptionError("--way taught: the teacher is too large to teach a copy. Use best.")
        if self.request.way != "best":
            return self.request.way
        survive = {}
        for way in WAYS:
            if way == "taught" and not self.writer.teachable:
                continue
            sieve = self._sieve()
            survive[way] = sum(map(sieve.take, self.tries(way, 0)))
        best = max(survive, key=lambda way: survive[way])
        told = ", ".join(f"{way} {kept}" for way, kept in survive.items())
        say(f"Prompts are drawn by: {best} (of {CHUNK} tries each, kept: {told}).")
        return best

    def tries(self, way: str, number: int) -> list[Written]:
        """A chunk of tries, drawn and answered; those of no use end at their reason."""

        def make(folder: Path) -> None:
            _dump(folder / "tries.jsonl", self._try(way, number))

        inputs = self._inputs() | {
            "way": way, "chunk": number, "seed": self.request.seed,
            "temperature": self.request.temperature,
        }  # fmt: skip
        folder = self.store.stage("tries", inputs, make, f"{way}-{number}")
        seeds = {item.line: item for item in self.task.train}
        return [
            Written(
                replace(with_text(seeds[each["seed"]], each["text"]), answer=each["answer"]),
                each["reason"],
                each["sure"],
            )
            for each in _load(folder / "tries.jsonl")
        ]

    def _try(self, way: str, number: int) -> Iterator[dict[str, Any]]:
        """A chunk of tries as rows: drawn, looked at, and where of use answered."""
        drawn = [
            (item, "not ended" if text is None else self._looker.look(item))
            for item, text in self._draw(way, number)
        ]
        prompts, long = {}, set()
        for place, (item, reason) in enumerate(drawn):
            ids = [] if reason else prompt_ids(self.tokenizer, item.messages)
            if len(ids) + self.answer_limit > self.source.context:
                long.add(place)
            elif ids:
                prompts[place] = ids
        said = self.writer.answers(list(prompts.values()), self.answer_limit)
        answers = dict(zip(prompts, said, strict=True))
        for place, (item, reason) in enumerate(drawn):
            answer = answers.get(place)
            if answer is not None and not (answer.ended and answer.text.strip()):
                reason = "no answer"
            yield {
                "seed": item.line,
                "text": last_text(item),
                "reason": "too long" if place in long else reason,
                "answer": answer.text if answer else None,
                "sure": answer.sure if answer else 0.0,
            }

    def _draw(self, way: str, number: int) -> list[tuple[Item, str | None]]:
        """New items of a chunk, and the text that each was drawn as; `line` is the seed's."""
        rng = random.Random(f"{self.request.seed}/{way}/{number}")
        draws = [self.drawer.draw(way, rng) for _ in range(CHUNK)]
        possible = [draw for draw in draws if draw is not None]
        seeds = [rng.getrandbits(31) for _ in possible]
        texts = self.writer.prompts(
            way, possible, seeds, self.request.temperature, self.prompt_limit
        )
        return [
            (with_text(draw.seed_item, text or ""), text)
            for draw, text in zip(possible, texts, strict=True)
        ]

    @cached_property
    def _looker(self) -> Sieve:
        return Sieve(self.task.train, self.held_out, -math.inf)

    @cached_property
    def prompt_limit(self) -> int:
        """The most tokens of a new prompt's text."""
        longest = max(len(self.tokenizer(last_text(item))["input_ids"]) for item in self.task.train)
        return round(longest * LONGER) + SPARE_TOKENS

    @cached_property
    def answer_limit(self) -> int:
        """The most tokens of an answer: a little beyond the longest that train and dev want."""
        known = [item.answer for item in self.task.train + self.task.dev if item.answer is not None]
        longest = max((len(answer_ids(self.tokenizer, answer)) for answer in known), default=0)
        return longest + SPARE_TOKENS if longest else FREE_TOKENS

    def _inputs(self) -> dict[str, Any]:
        return {
            "teacher": self.source.sha256(), "tokenizer": self.source.tokenizer_sha256(),
            "config": sha256_of(self.source.path / "config.json"), "task": self.task.sha256,
        }  # fmt: skip


def _listed(sieve: Sieve) -> str:
    return ", ".join(f"{count} {name}" for name, count in sieve.dropped.most_common())


def _dump(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _load(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
