"""Tries of a teacher at new items, chunk by chunk, and what it says to the real ones.

What takes longer than a second is a stage of a store: the teacher's GGUF, its answers to the task's
own prompts, and every CHUNK of tries. What is kept is worked out anew from them each time, so that
more items, or another threshold, use all that was written before.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from flyweight.checkpoint import Checkpoint
from flyweight.make.data import FREE_TOKENS, SPARE_TOKENS
from flyweight.make.drawing import Drawer, with_text
from flyweight.make.sieve import Sieve, Written, sure_enough
from flyweight.make.store import Store
from flyweight.make.writer import Answer, Writer
from flyweight.progress import bar
from flyweight.tasks.encode import answer_ids, prompt_ids
from flyweight.tasks.items import Item, Task
from flyweight.tasks.score import Scorer

CHUNK = 64  # tries that are kept, or lost, together
REAL = 256  # items of train, and of dev, that tell how sure the teacher is of real prompts
LONGER = 1.5  # times the longest known prompt: more is no prompt of this task


class Tries:
    """A teacher, the items that there are, and the stages of writing more."""

    def __init__(
        self,
        source: Checkpoint,
        task: Task,
        scoring: Scorer,
        store: Store,
        seed: int,
        temperature: float,
    ) -> None:
        self.source, self.task, self.scoring, self.store = source, task, scoring, store
        self.seed, self.temperature = seed, temperature
        self.tokenizer = source.tokenizer()
        self.drawer = Drawer(self.tokenizer, task.train)
        self.writer = Writer(source, self.drawer, store, seed)

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
    def own_answers(self) -> dict[int, str | None]:
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

    def chunk(self, way: str, number: int) -> list[Written]:
        """A chunk of tries, drawn and answered; those of no use end at their reason."""

        def make(folder: Path) -> None:
            _dump(folder / "tries.jsonl", self._try(way, number))

        inputs = self._inputs() | {
            "way": way, "chunk": number, "seed": self.seed,
            "temperature": self.temperature,
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
                "text": item.last_text,
                "reason": "too long" if place in long else reason,
                "answer": answer.text if answer else None,
                "sure": answer.sure if answer else 0.0,
            }

    def _draw(self, way: str, number: int) -> list[tuple[Item, str | None]]:
        """New items of a chunk, and the text that each was drawn as; `line` is the seed's."""
        rng = random.Random(f"{self.seed}/{way}/{number}")
        draws = [self.drawer.draw(way, rng) for _ in range(CHUNK)]
        possible = [draw for draw in draws if draw is not None]
        seeds = [rng.getrandbits(31) for _ in possible]
        texts = self.writer.prompts(way, possible, seeds, self.temperature, self.prompt_limit)
        return [
            (with_text(draw.seed_item, text or ""), text)
            for draw, text in zip(possible, texts, strict=True)
        ]

    @cached_property
    def _looker(self) -> Sieve:
        return Sieve(self.task.train, self.task.dev + self.task.test, -math.inf)

    @cached_property
    def prompt_limit(self) -> int:
        """The most tokens of a new prompt's text."""
        longest = max(len(self.tokenizer(item.last_text)["input_ids"]) for item in self.task.train)
        return round(longest * LONGER) + SPARE_TOKENS

    @cached_property
    def answer_limit(self) -> int:
        """The most tokens of an answer: a little beyond the longest that train and dev want."""
        known = [item.answer for item in self.task.train + self.task.dev if item.answer is not None]
        longest = max((len(answer_ids(self.tokenizer, answer)) for answer in known), default=0)
        return longest + SPARE_TOKENS if longest else FREE_TOKENS

    def _inputs(self) -> dict[str, Any]:
        return self.source.identity() | {"task": self.task.sha256}


def _dump(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _load(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
