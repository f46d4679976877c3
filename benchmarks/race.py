"""Which loss should a student be trained with?

Students are cut to one shape from one teacher and trained on the same batches at the same rate,
towards each of the losses that `flyweight distill` knows. Read are the held-out answers on the way
and at the end: the share that greedy decoding would give exactly (answers one token after the
other, the wanted ones before it given, which is the same) and their cross-entropy in nats a token.
A likelihood task has the second alone.

A race: what the first seed shows to be worse than its best drops out (95 %, paired bootstrap over
groups, in the score that the task asks for); the others, at most `--stay`, are trained from two
more seeds. The table gives means over the seeds at equal tokens, and at equal time: as far as each
came in the CPU time that the default took to its end, where a slower loss is read in the middle of
its course, its rate still high. Reading is not counted; the one pass of the teacher for a record
is not either. Intervals hold the trained models as given, as far as their seeds go.

    python benchmarks/race.py demo --runs out/race-demo.jsonl          # half an hour on one core
    python benchmarks/race.py babyllama --runs out/race-baby.jsonl
    python benchmarks/race.py banking77 --teacher out/bank-teacher --runs out/race-bank.jsonl

With `--runs` each training is kept in that file, and a second command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

import plateau
from flyweight.distill.cache import Record, record
from flyweight.distill.objectives import Aim
from flyweight.distill.trainer import Probe, Row, Schedule, fast_math, train
from flyweight.distill.wish import Wish
from flyweight.make.effort import BATCH, LEARNING_RATE
from flyweight.runtime.forced import answer_logits

DEFAULT = "forward KL and answers"
ARMS = {
    DEFAULT: Aim(),
    "forward KL alone": Aim(kl=1.0),
    "reverse KL and answers": Aim("reverse-kl"),
    "JSD and answers": Aim("jsd"),
    "answers alone": Aim("cross-entropy"),
    "forward KL, answers, hidden states": Aim(match_hidden=1.0),
    "reverse KL, a quarter on-policy": Aim("reverse-kl", on_policy=0.25),
}
READ = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # of the steps
RESAMPLES = 2000
SEEDS = 3

console = Console(highlight=False, width=150)


@dataclass(frozen=True)
class Moment:
    """What a student knew after some steps and CPU seconds: of each held-out answer."""

    step: int
    seconds: float
    exact: list[float]
    nats: list[float]


@dataclass(frozen=True)
class Course:
    """One training, as it was read on the way."""

    arm: str
    seed: int
    moments: list[Moment]


@dataclass(frozen=True)
class Data:
    """What the arms learn from, in the form that each needs."""

    setup: plateau.Setup
    plain: list[Row]
    recorded: Record

    @classmethod
    def of(cls, setup: plateau.Setup, place: Path) -> Data:
        kept = ("input_ids", "weights", "prompt_length")
        plain = [{name: row[name] for name in kept} for row in setup.rows]
        wish = Wish(plain, {"teacher": "the case's own"}, setup.teacher.config.vocab_size)
        return cls(setup, plain, record(place, wish, lambda: setup.teacher))

    def rows(self, aim: Aim) -> Sequence[Row]:
        return self.recorded.rows(drawn=aim.drawn) if aim.recorded else self.plain


@torch.inference_mode()
def read(model: Any, pairs: Sequence[tuple[list[int], list[int]]]) -> tuple[list[float], ...]:
    """Whether each answer would be given exactly, and its nats."""
    exact, nats = np.zeros(len(pairs)), np.zeros(len(pairs))
    with fast_math(next(model.parameters())):
        for place, logits, wanted in answer_logits(model, pairs, 64, title=""):
            exact[place] = bool((logits.argmax(-1) == wanted).all())
            nats[place] = float(F.cross_entropy(logits, wanted, reduction="sum"))
    return exact.tolist(), nats.tolist()


def run(data: Data, arm: str, seed: int, steps: int) -> Course:
    """Train one arm from one seed, reading it on the way."""
    aim, setup = ARMS[arm], data.setup
    model = setup.start("cut").requires_grad_(True)
    longest = max(len(row["input_ids"]) - row["prompt_length"] for row in data.plain)
    objective = aim.beside(model, setup.teacher, longest) if aim.live else aim.without_teacher()
    moments: list[Moment] = []
    spent = 0.0  # on reading

    def look(student: Any) -> dict[str, float]:
        nonlocal spent
        began = time.process_time()
        found = read(student, setup.held_out)
        moments.append(Moment(at[len(moments)], began - start - spent, *found))
        spent += time.process_time() - began
        return {"nats": float(np.sum(found[1]))}

    at = sorted({max(1, round(steps * share)) for share in READ})
    schedule = Schedule(steps, BATCH, LEARNING_RATE, seed=seed)
    start = time.process_time()
    rows = data.rows(aim)
    train(model, rows, objective, schedule, f"{arm}, {seed}", probe=Probe(frozenset(at), look))
    return Course(arm, seed, moments)


class Courses(list[Course]):
    """The trainings so far, kept in a file when there is one."""

    def __init__(self, path: Path | None, steps: int) -> None:
        super().__init__()
        self.path = path
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                known = json.loads(line)
                moments = [Moment(**each) for each in known["moments"]]
                if moments[-1].step == steps:  # others are of another race
                    self.append(Course(known["arm"], known["seed"], moments))

    def of(self, arm: str) -> list[Course]:
        return [each for each in self if each.arm == arm]

    def need(self, data: Data, arm: str, seed: int, steps: int) -> None:
        """Make that training unless it is known."""
        if any(each.seed == seed for each in self.of(arm)):
            return
        made = run(data, arm, seed, steps)
        self.append(made)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(made)) + "\n")


class Judge:
    """Compares readings of the same held-out answers: means and paired differences."""

    def __init__(self, counts: np.ndarray, groups: Sequence[str], likelihood: bool) -> None:
        self.counts, self.likelihood = counts, likelihood
        names, generator = np.array(groups), np.random.default_rng(0)
        members = [np.flatnonzero(names == name) for name in dict.fromkeys(groups)]
        self.drawn = [
            np.concatenate([members[i] for i in generator.integers(0, len(members), len(members))])
            for _ in range(RESAMPLES)
        ]

    def mean(self, values: np.ndarray, nats: bool, places: Any = slice(None)) -> float:
        """The share exact, or nats a token."""
        below = self.counts[places].sum() if nats else len(values[places])
        return float(values[places].sum() / below)

    def difference(self, a: np.ndarray, b: np.ndarray, nats: bool) -> tuple[float, float, float]:
        """Of the means, a - b, with a 95 % interval."""
        drawn = [self.mean(a - b, nats, places) for places in self.drawn]
        low, high = np.quantile(drawn, (0.025, 0.975))
        return self.mean(a - b, nats), float(low), float(high)

    def values(self, moments: Sequence[Moment], nats: bool) -> np.ndarray:
        """float [n]: of each held-out answer, the mean over seeds."""
        return np.mean([each.nats if nats else each.exact for each in moments], axis=0)

    def worse(self, one: Moment, best: Moment) -> bool:
        """Whether `one` is measurably worse, in the score that the task asks for."""
        a, b = (self.values([each], self.likelihood) for each in (one, best))
        _, low, high = self.difference(a, b, self.likelihood)
        return low > 0 if self.likelihood else high < 0


def in_time(course: Course, seconds: float) -> Moment:
    """The last reading that was there after so many CPU seconds, or the first."""
    there = [each for each in course.moments if each.seconds <= seconds * 1.02]
    return there[-1] if there else course.moments[0]


def stayers(courses: Courses, judge: Judge, most: int) -> list[str]:
    """The default, and what the first seed does not show to be worse than its best."""
    last = {each.arm: each.moments[-1] for each in courses if each.seed == 0}

    def rank(arm: str) -> float:
        mean = judge.mean(judge.values([last[arm]], judge.likelihood), judge.likelihood)
        return mean if judge.likelihood else -mean

    ordered = sorted(last, key=rank)
    good = [arm for arm in ordered if not judge.worse(last[arm], last[ordered[0]])]
    return list(dict.fromkeys([*good[:most], DEFAULT]))


def report(courses: Courses, judge: Judge) -> None:
    """The table: at equal tokens and at equal time, beside the default."""
    table = Table(title=f"{len(judge.counts)} held-out answers; in brackets the difference to the "
                  "default, 95 %")  # fmt: skip
    headings = ["loss", "seeds", "CPU s", "nats a token"]
    kinds = (True,) if judge.likelihood else (True, False)  # nats, exact
    headings += ["exact"][: len(kinds) - 1]
    headings += ["at equal time: nats", "at equal time: exact"][: len(kinds)]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "loss" else "right")
    base = courses.of(DEFAULT)
    there = max(each.moments[-1].seconds for each in base)
    for arm in ARMS:
        made = courses.of(arm)
        if not made:
            continue
        beside = [each for each in base if each.seed in {one.seed for one in made}]
        cells = [str(len(made)), f"{np.mean([each.moments[-1].seconds for each in made]):.0f}"]
        theirs = [each.moments[-1] for each in beside]
        for mine in ([each.moments[-1] for each in made], [in_time(each, there) for each in made]):
            cells += [_cell(judge, mine, theirs, nats, same=arm == DEFAULT) for nats in kinds]
        table.add_row(arm, *cells)
    console.print(table)


def _cell(
    judge: Judge, mine: Sequence[Moment], base: Sequence[Moment], nats: bool, *, same: bool
) -> str:
    values = judge.values(mine, nats)
    mean = judge.mean(values, nats)
    said = f"{mean:.4f}" if nats else f"{mean:.1%}"
    if same:
        return said
    found = judge.difference(values, judge.values(base, nats), nats)
    if nats:
        return said + " ({:+.4f}: {:+.4f} to {:+.4f})".format(*found)
    return said + " ({:+.1f}: {:+.1f} to {:+.1f})".format(*(100 * each for each in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=("demo", "babyllama", "banking77"))
    parser.add_argument("--teacher", type=Path, help="another one than the case's own")
    parser.add_argument("--intents", type=int, default=77, help="of banking77, as it was taught")
    parser.add_argument("--keep", type=float, default=0.18, help="the student's share")
    parser.add_argument("--train", type=int, default=3000, help="train items, at most")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--stay", type=int, default=4, help="losses that are given more seeds")
    parser.add_argument("--runs", type=Path, help="where trainings are kept, to go on from there")
    told = parser.parse_args()
    with TemporaryDirectory() as scratch:
        teacher, task, score = plateau.find_case(told, Path(scratch))
        setup = plateau.set_up(str(teacher), task, score, told.keep, told.train)
        data = Data.of(setup, Path(scratch) / "record")
        judge = Judge(setup.counts, setup.groups, score == "likelihood")
        courses = Courses(told.runs, told.steps)
        for arm in ARMS:
            courses.need(data, arm, 0, told.steps)
        report(courses, judge)
        stay = stayers(courses, judge, told.stay)
        console.print(f"Given two more seeds: {', '.join(stay)}")
        for seed in range(1, SEEDS):
            for arm in stay:
                courses.need(data, arm, seed, told.steps)
    report(courses, judge)
    console.print(f"{math.ceil(setup.tokens):,} tokens a step, {told.steps} steps")


if __name__ == "__main__":
    main()
