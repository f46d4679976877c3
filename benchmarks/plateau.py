"""How many tokens does a cut and distilled student need to be where one from scratch ends up?

One shape, four ways to train it: cut from the teacher or drawn at random, towards the teacher's
distribution (KD: KL and answers) or the answers alone (CE). The level is the best that scratch + CE
reaches at any length; it counts as the plateau when a run twice as long is no better, or when the
last 20 % of its tokens gained less than 1 %, and so did the second half of its length (a rate near
zero gains little anywhere), else the table says so. Every point is a run of its own, of doubling
length, whose rate falls to zero at its end: a reading on the way to a longer run would be too high,
since its rate still is. That costs twice the tokens of the longest run, and each point is what
somebody who stops there would have. An arm runs no further than the level.

Read is the cross-entropy of held-out answers, in nats a token, the answer given token by token.
Not counted: the teacher's one pass over train, and over a few hundred items for the cut. Only
scratch has its learning rate chosen: the best of three at a quarter of the length. Intervals:
bootstrap over groups of held-out items, the trained models given; another seed would move them
further.

    python benchmarks/plateau.py demo --runs out/plateau-demo.jsonl      # an hour on one core
    python benchmarks/plateau.py babyllama --runs out/plateau-baby.jsonl
    python benchmarks/plateau.py banking77 --teacher out/bank-teacher --runs out/plateau-bank.jsonl

With `--runs` each run is kept in that file, and a second command goes on from there.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import babyllama
import banking77
from curves_data import draw
from flyweight.checkpoint import open_checkpoint
from flyweight.demo.orders import write_task
from flyweight.distill.losses import Distillation, cross_entropy
from flyweight.distill.objectives import KL
from flyweight.distill.teacher import answer_rows, record_teacher
from flyweight.distill.trainer import Probe, Row, Schedule, train
from flyweight.make.data import prepare_split
from flyweight.make.effort import BATCH, LEARNING_RATE
from flyweight.make.form import form_of
from flyweight.make.rank import divergence, rank_shapes
from flyweight.make.workload import MENDED
from flyweight.runtime.forced import answer_bits
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.cut import cut_model
from flyweight.shrink.mend import mend
from flyweight.tasks.read import read_task
from flyweight.tasks.score import scorer
from llama2c import convert_known

HELD_OUT = 300  # items
RESAMPLES = 1000
PLATEAU = 0.01  # gain of the last 20 % of tokens below which a run is on its plateau
ARMS = ("cut + KD", "cut + CE", "scratch + KD", "scratch + CE")


@dataclass
class Setup:
    """The teacher, its cut, and what the arms learn from and are read on."""

    teacher: Any
    cut: Any
    rows: list[Row]
    held_out: list[tuple[list[int], list[int]]]
    groups: list[str]  # of the held-out items
    tokens: float  # of a step

    def start(self, arm: str) -> Any:
        """The student before its first step."""
        if arm.startswith("cut"):
            return copy.deepcopy(self.cut)
        torch.manual_seed(0)
        return type(self.cut)(self.cut.config).float()

    @property
    def counts(self) -> np.ndarray:
        """float [n]: tokens of each held-out answer."""
        return np.array([len(answer) for _, answer in self.held_out], dtype=float)

    def read(self, model: Any) -> np.ndarray:
        """float [n]: nats of each held-out answer."""
        return answer_bits(model, self.held_out, title="") * math.log(2)


@dataclass(frozen=True)
class Run:
    """One training to its end: tokens, and the nats of each held-out answer then."""

    arm: str
    rate: float
    steps: int
    nats: np.ndarray
    gain: float  # over the last 20 % of its tokens, as a share


def set_up(
    name: str, task_file: Path, score: str, keep: float, most: int, *, mended: bool = False
) -> Setup:
    """Teacher, shape and data: the shape of the grid with about `keep` that stays nearest to it.

    `mended`: the cut's weights are fitted before training, as `make` does beyond `--effort quick`.
    """
    source, task = open_checkpoint(name), read_task(task_file)
    form, teacher, how = form_of(source), source.model(), scorer(score)
    splits = {
        part: prepare_split(items, task.name, form, how)
        for part, items in (("train", task.train[:most]), ("dev", task.dev))
    }
    rows = record_teacher(teacher, answer_rows(splits["train"].examples))
    sequences = [example.ids.tolist() for example in splits["train"].examples[:256]]
    importance = measure_importance(teacher, source.family, sequences)
    looked = record_teacher(teacher, answer_rows(splits["dev"].examples[:128], 0.0))
    apart = partial(divergence, rows=looked)
    shape = rank_shapes(teacher, source.family, importance, apart, keep)[0].shape
    kept = importance.keep(source.shape, shape)
    cut = cut_model(teacher, source.family, kept)
    if mended:
        prompts = [example.ids.tolist() for example in splits["train"].examples[:MENDED]]
        mend(cut, teacher, source.family, kept, prompts)
    mean = float(np.mean([len(row["input_ids"]) for row in rows]))
    count = source.family.count(shape, source.config)
    Console().print(f"{shape}: {count:,} of {source.parameters:,} parameters")
    dev = splits["dev"]
    return Setup(teacher, cut, rows, dev.pairs, dev.groups, mean * BATCH)


def run(setup: Setup, arm: str, rate: float, steps: int) -> Run:
    """Train one arm for so many steps, the rate falling to zero."""
    model = setup.start(arm)
    objective = Distillation(KL) if arm.endswith("KD") else cross_entropy
    before = max(1, round(steps * 0.8))
    probe = Probe(frozenset({before}), lambda it: {"nats": float(setup.read(it).sum())})
    schedule = Schedule(steps=steps, batch_size=BATCH, learning_rate=rate)
    title = f"{arm}, {rate:g}, {steps}"
    trained = train(model, setup.rows, objective, schedule, title, probe=probe)
    nats = setup.read(model)
    earlier = dict(trained.readings)[before]["nats"]
    return Run(arm, rate, steps, nats, 1 - float(nats.sum()) / earlier)


def mean_nats(run: Run, counts: np.ndarray) -> float:
    """Nats a token."""
    return float(run.nats.sum() / counts.sum())


def tokens_to(level: float, runs: Sequence[Run], counts: np.ndarray) -> float:
    """Steps (log-interpolated between runs of doubling length) at which a level is reached."""
    ordered = sorted(runs, key=lambda each: each.steps)
    values = [mean_nats(each, counts) for each in ordered]
    for place, value in enumerate(values):
        if value > level:
            continue
        if place == 0:
            return float(ordered[0].steps)  # at most
        share = (values[place - 1] - level) / (values[place - 1] - value)
        low, high = (math.log(ordered[place - 1 + i].steps) for i in (0, 1))
        return math.exp(low + share * (high - low))
    return math.inf


def scratch_level(runs: Sequence[Run], counts: np.ndarray) -> Run:
    """The best run of scratch + CE, whatever its length."""
    return min((one for one in runs if one.arm == ARMS[-1]), key=lambda one: mean_nats(one, counts))


def interval(runs: list[Run], arm: str, setup: Setup) -> tuple[float, float, float]:
    """How many times fewer tokens than scratch's best run an arm needs; bootstrap over groups."""
    counts, names = setup.counts, np.array(setup.groups)
    members = [np.flatnonzero(names == name) for name in dict.fromkeys(setup.groups)]
    best = scratch_level(runs, counts)
    mine = [each for each in runs if each.arm == arm]
    generator = np.random.default_rng(0)

    def ratio(places: np.ndarray) -> float:
        level, *others = (replace(each, nats=each.nats[places]) for each in (best, *mine))
        there = tokens_to(mean_nats(level, counts[places]), others, counts[places])
        return best.steps / there

    whole = ratio(np.arange(len(counts)))
    drawn = []
    for _ in range(RESAMPLES):
        chosen = generator.integers(0, len(members), len(members))
        drawn.append(ratio(np.concatenate([members[place] for place in chosen])))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return whole, float(low), float(high)


class Runs(list[Run]):
    """The runs made so far, kept in a file when there is one."""

    def __init__(self, setup: Setup, path: Path | None) -> None:
        super().__init__()
        self.setup, self.path = setup, path
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                known = json.loads(line)
                self.append(Run(**known | {"nats": np.array(known["nats"])}))

    def at(self, arm: str, rate: float, steps: int) -> Run:
        """That run, made now unless it is known."""
        for known in self:
            if (known.arm, known.rate, known.steps) == (arm, rate, steps):
                return known
        made = run(self.setup, arm, rate, steps)
        self.append(made)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(made) | {"nats": made.nats.tolist()}) + "\n")
        return made


def race(runs: Runs, steps: int, rates: Sequence[float], halvings: int, cut_rate: float) -> None:
    """Scratch + CE to its best, then every other arm from short to long until it is there."""
    counts = runs.setup.counts
    quarter = max(4, steps // 4)
    best = min((runs.at(ARMS[-1], rate, quarter) for rate in rates), key=lambda r: r.nats.sum())
    lengths = [max(4, steps // 2**i) for i in range(halvings, -1, -1)]
    for arm in (ARMS[-1], *ARMS[:-1]):
        rate = best.rate if arm.startswith("scratch") else cut_rate
        for length in lengths:
            reached = mean_nats(runs.at(arm, rate, length), counts)
            if arm != ARMS[-1] and reached <= mean_nats(scratch_level(runs, counts), counts):
                break  # longer ones are below the level as well


def report(runs: list[Run], setup: Setup) -> float:
    """The table: what each run reached, and the ratios. Returns the level that is raced to."""
    counts, console = setup.counts, Console(highlight=False, width=100)
    table = Table(title=f"{len(counts)} held-out answers, nats a token")
    for heading in ("arm", "rate", "steps", "tokens", "nats", "gain of the last 20 %"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    for each in sorted(runs, key=lambda one: (ARMS.index(one.arm), one.steps, one.rate)):
        tokens = f"{each.steps * setup.tokens:,.0f}"
        nats = f"{mean_nats(each, counts):.4f}"
        cells = (f"{each.rate:g}", f"{each.steps:,}", tokens, nats, f"{each.gain:.1%}")
        table.add_row(each.arm, *cells)
    console.print(table)
    nats = float((answer_bits(setup.teacher, setup.held_out, title="") * math.log(2)).sum())
    best = scratch_level(runs, counts)
    level = mean_nats(best, counts)
    console.print(f"The teacher: {nats / counts.sum():.4f}. The level: {level:.4f}, scratch + CE.")
    longer = [one for one in runs if one.arm == ARMS[-1] and one.steps == 2 * best.steps]
    half = [one for one in runs if one.arm == ARMS[-1] and one.steps == best.steps // 2]
    doubling = 1 - level / min(mean_nats(one, counts) for one in half) if half else math.nan
    if longer:
        more = 1 - min(mean_nats(one, counts) for one in longer) / level
        console.print(f"Twice as long gains {more:.1%}: scratch has no more to give.")
    elif not (best.gain < PLATEAU and doubling < PLATEAU):
        console.print(
            f"That is no plateau yet: its last 20 % of tokens gained {best.gain:.1%}, twice the "
            f"length {doubling:.1%}. What follows is no answer to the question."
        )
    for arm in ARMS[:-1]:
        whole, low, high = interval(runs, arm, setup)
        mine = [one for one in runs if one.arm == arm]
        there = tokens_to(level, mine, counts)
        found = f"{there * setup.tokens:,.0f} tokens, {whole:.1f} times fewer"
        if there <= min(one.steps for one in mine):
            found = f"there by its shortest run: at most {found}, or more"
        if math.isinf(there):
            found = "not there after as many tokens"
        console.print(f"{arm}: {found} ({low:.1f} to {high:.1f})")
    return level


def find_case(told: argparse.Namespace, folder: Path) -> tuple[Path, Path, str]:
    """The teacher's folder, the task file, and the score, of the case that was asked for."""
    task = folder / f"{told.case}.jsonl"
    if told.case == "babyllama":
        teacher = convert_known("babyllama", folder / "babyllama")
        return teacher, babyllama.write_task(task, told.train, 2 * HELD_OUT), "likelihood"
    if told.case == "banking77":
        if told.teacher is None:
            raise SystemExit("Give --teacher: what benchmarks/banking77.py --keep FOLDER left.")
        # dev as the teacher had it, else it and its cut have learned what they are read on
        return told.teacher, banking77.write_task(task, told.intents, banking77.DEV, 1), "exact"
    write_task(task)
    return told.teacher or banking77.TEACHER, task, "exact"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=("demo", "babyllama", "banking77"))
    parser.add_argument("--teacher", type=Path, help="another one than the case's own")
    parser.add_argument("--intents", type=int, default=77, help="of banking77, as it was taught")
    parser.add_argument("--keep", type=float, default=0.18, help="the student's share")
    parser.add_argument("--train", type=int, default=1600, help="train items, at most")
    parser.add_argument("--steps", type=int, default=3000, help="of the longest runs")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3])
    parser.add_argument("--cut-rate", type=float, default=LEARNING_RATE, help="of a cut student")
    parser.add_argument("--mend", action="store_true", help="fit what the cut leaves first")
    parser.add_argument("--halvings", type=int, default=7)
    parser.add_argument("--runs", type=Path, help="where runs are kept, to go on from there")
    parser.add_argument("--plot", type=Path, help="default: benchmarks/plateau-CASE.svg")
    told = parser.parse_args()
    with TemporaryDirectory() as scratch:
        teacher, task, score = find_case(told, Path(scratch))
        setup = set_up(str(teacher), task, score, told.keep, told.train, mended=told.mend)
    runs = Runs(setup, told.runs)
    race(runs, told.steps, told.rates, told.halvings, told.cut_rate)
    level = report(runs, setup)
    curves = {}
    for arm in ARMS:
        mine = [each for each in runs if each.arm == arm]
        best = {
            steps: min(mean_nats(each, setup.counts) for each in mine if each.steps == steps)
            for steps in {each.steps for each in mine}
        }
        curves[arm] = [(steps * setup.tokens, nats) for steps, nats in best.items()]
    plot = told.plot or Path(__file__).with_name(f"plateau-{told.case}.svg")
    draw(plot, f"{told.case}: held-out answers", curves, level)


if __name__ == "__main__":
    main()
