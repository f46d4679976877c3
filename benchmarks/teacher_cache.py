"""What does learning from a teacher's record cost and lose, beside the teacher run in each step?

Students are cut from the demo's teacher and trained from the same seed, on the same batches, three
times: against the record with the tokens that are drawn from the tail (distill/drawn.py), against
the same record with the tail as one event, and against the live teacher (distill/live.py). All are
read on the same dev items against the teacher's full distribution: the training's loss, 0.7
KL(teacher || student) + 0.3 cross-entropy, in nats a token. The ratio to live has a 95 % interval
over the seeds (t). Time is the process's CPU time of a trainer's step, reading rows included, with
one thread, since other work may share the cores, in turn, with an interval over the rounds.

Beside it: bytes a token, the pass that is paid once, and what of KL the tail as one event really
hides from the trained student, beside the bound that is printed. With --runs FILE each training is
kept there, and a run that was stopped goes on.

    python benchmarks/teacher_cache.py --task out/demo-task.jsonl      # an hour on one core
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from scipy import stats

from flyweight.anatomy import Shape
from flyweight.checkpoint import open_checkpoint
from flyweight.distill.cache import Record, record
from flyweight.distill.divergences import Blend
from flyweight.distill.live import LiveDistillation
from flyweight.distill.losses import Distillation, Objective
from flyweight.distill.objectives import KL
from flyweight.distill.packed import bytes_a_token, kept
from flyweight.distill.teacher import answer_rows, record_teacher
from flyweight.distill.trainer import Probe, Row, Schedule, collate, train
from flyweight.distill.wish import FORMAT, Wish
from flyweight.make.effort import BATCH, LEARNING_RATE
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.cut import cut_model
from flyweight.tasks.encode import encode_items
from flyweight.tasks.read import read_task

DEMO = "src/flyweight/demo/teacher"
SIZES: dict[str, dict[str, int]] = {
    "4 times": {"layers": 6, "hidden": 128, "mlp": 512},
    "9 times": {"layers": 4, "hidden": 96, "mlp": 384},
}
VOCABULARIES = (2048, 65_536, 128_256, 262_144)
ROUND = 4  # steps that are timed at once
DRAWN, ONE, LIVE = "drawn", "tail as one", "live"

console = Console(highlight=False, width=110)


@dataclass
class Setup:
    """The teacher, its record of train, plain rows of both splits, and the cuts."""

    teacher: Any
    recorded: Record
    train: list[Row]
    dev: list[Row]
    cuts: dict[str, Any]
    batch: int  # rows of a step

    def student(self, size: str) -> Any:
        """A fresh cut."""
        return copy.deepcopy(self.cuts[size]).requires_grad_(True)

    def arms(self) -> dict[str, tuple[list[Row], Objective]]:
        """What each arm learns from."""
        return {
            DRAWN: (self.recorded.rows(drawn=True), Distillation(KL)),
            ONE: (self.recorded.rows(), Distillation(KL)),
            LIVE: (self.train, LiveDistillation(self.teacher, Blend(KL))),
        }


def set_up(task_file: Path, most: int, held_out: int, batch: int, place: Path) -> Setup:
    """Record the teacher on train, and cut it."""
    source, task = open_checkpoint(DEMO), read_task(task_file)
    tokenizer, teacher = source.tokenizer(), source.model()
    parts = [
        encode_items(tokenizer, items, task.name, source.context)
        for items in (task.train[:most], task.dev[:held_out])
    ]
    rows = answer_rows(parts[0])
    wish = Wish(rows, {"teacher": source.sha256()}, source.shape.vocabulary)
    began = time.process_time()
    found = record(place, wish, lambda: teacher)
    once = time.process_time() - began
    size = sum(file.stat().st_size for file in place.iterdir())
    began = time.process_time()
    again = record(place, wish, lambda: teacher)
    console.print(f"The record: {found}")
    console.print(
        f"On disk {size / wish.tokens:.1f} bytes a token; written once in {once:.1f} s of CPU, "
        f"opened and checked in {time.process_time() - began:.2f} s. By vocabulary: "
        + ", ".join(f"{n:,}: {bytes_a_token(64, n, kept(64, n)[1])}" for n in VOCABULARIES)
    )
    importance = measure_importance(
        teacher, source.family, [row["input_ids"] for row in rows[:128]]
    )
    cuts = {}
    for name, sizes in SIZES.items():
        shape: Shape = source.shape.with_sizes(**sizes)
        cuts[name] = cut_model(teacher, source.family, importance.keep(source.shape, shape))
        count = source.family.count(shape, source.config)
        console.print(f"{name}: {shape}, {source.parameters / count:.1f} times smaller")
    return Setup(teacher, again, rows, answer_rows(parts[1]), cuts, batch)


@torch.inference_mode()
def read(model: Any, rows: Sequence[Row], objective: Objective) -> float:
    """The objective in nats a unit of weight over rows."""
    total = weight = 0.0
    for start in range(0, len(rows), BATCH):
        batch = collate(rows[start : start + BATCH])
        each = float(batch["weights"][:, 1:].sum())
        total += float(objective(model, batch)) * each
        weight += each
    return total / weight


def trained(setup: Setup, size: str, steps: int, seed: int, arm: str) -> dict[str, float]:
    """Dev loss of one arm from one seed; where the tail is one event also what it hides of KL."""
    rows, objective = setup.arms()[arm]
    model = setup.student(size)
    schedule = Schedule(steps, setup.batch, LEARNING_RATE, seed=seed)
    train(model, rows, objective, schedule, f"{size}, {arm}, seed {seed}")
    found = {"loss": read(model, setup.dev, LiveDistillation(setup.teacher, Blend(KL)))}
    if arm == ONE:
        whole = read(model, setup.dev, LiveDistillation(setup.teacher, Blend(1.0)))
        seen = read(model, record_teacher(setup.teacher, setup.dev), Distillation(1.0))
        found |= {"KL": whole, "hidden": whole - seen}
    return found


class Runs:
    """What was trained before, by all that decides it, one JSON line each; None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.known = {json.dumps(key): found for key, found in map(json.loads, lines)}

    def get(self, key: list[Any], make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What is known, or else made and kept."""
        name = json.dumps(key)
        if name not in self.known:
            self.known[name] = make()
            if self.path:
                with self.path.open("a") as file:
                    file.write(json.dumps([key, self.known[name]]) + "\n")
        return self.known[name]


def seconds(setup: Setup, size: str, rounds: int) -> np.ndarray:
    """float [rounds, arms]: CPU seconds of a trainer's step against each arm, in turn."""
    arms = list(setup.arms().values())
    taken = np.zeros((rounds, len(arms)))
    clock = Probe(frozenset({2, 2 + ROUND}), lambda _: {"cpu": time.process_time()})
    for number in range(rounds):
        for place in range(len(arms)):
            arm = (place + number) % len(arms)
            rows, objective = arms[arm]
            schedule = Schedule(2 + ROUND, setup.batch, LEARNING_RATE, seed=number)
            course = train(setup.student(size), rows, objective, schedule, "Timing", probe=clock)
            (_, first), (_, last) = course.readings
            taken[number, arm] = (last["cpu"] - first["cpu"]) / ROUND
    return taken


def ratio(values: Sequence[float] | np.ndarray) -> str:
    """The geometric mean of ratios with a 95 % t interval."""
    logs = np.log(np.asarray(values))
    middle = float(logs.mean())
    wide = float(stats.t.ppf(0.975, len(logs) - 1)) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    low, high = math.exp(middle - wide), math.exp(middle + wide)
    return f"{math.exp(middle):.4f} ({low:.4f} to {high:.4f}), n = {len(logs)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", type=Path, required=True, help="the demo's")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--train", type=int, default=1600, help="train items, at most")
    parser.add_argument("--held-out", type=int, default=200, help="dev items")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=BATCH, help="rows of a step")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10, help="of timing")
    parser.add_argument("--runs", type=Path, help="a file that keeps what was trained")
    told = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as scratch:
        place = Path(scratch) / "record"
        setup = set_up(told.task, told.train, told.held_out, told.batch, place)
        for size in told.sizes:
            if told.rounds > 1:
                show_time(size, seconds(setup, size, told.rounds))
            if told.seeds > 1:
                show_loss(setup, size, told)


def show_time(size: str, taken: np.ndarray) -> None:
    """The CPU time of a step from either reading of the record, beside live."""
    drawn, one, live = taken.mean(0)
    console.print(
        f"{size}: a step takes {drawn:.3f} s with drawn tokens, {one:.3f} s with the tail as one, "
        f"{live:.3f} s live: x{ratio(taken[:, 2] / taken[:, 0])}"
    )


def show_loss(setup: Setup, size: str, told: argparse.Namespace) -> None:
    """The dev loss from either reading of the record, beside live."""
    runs, found = Runs(told.runs), []
    for seed in range(told.seeds):
        course = [told.train, told.held_out, told.batch, told.steps, seed]
        found.append({})
        for arm in (DRAWN, ONE, LIVE):
            found[-1][arm] = runs.get(
                [FORMAT, size, *course, arm],
                lambda arm=arm, seed=seed: trained(setup, size, told.steps, seed, arm),
            )
        losses = {arm: round(each["loss"], 5) for arm, each in found[-1].items()}
        console.print(f"   seed {seed}: {losses}")
    for arm in (DRAWN, ONE):
        against = ratio([each[arm]["loss"] / each[LIVE]["loss"] for each in found])
        console.print(f"{size}: dev loss, {arm}: x{against} that of live, {told.steps} steps")
    hidden, whole = (np.mean([each[ONE][name] for each in found]) for name in ("hidden", "KL"))
    console.print(f"{size}: the tail as one hides {hidden:.4f} of {whole:.4f} nats of KL")


if __name__ == "__main__":
    main()
