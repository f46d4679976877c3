"""What does learning from a teacher's record cost and lose, beside the teacher run in each step?

Students are cut from the demo's teacher and trained twice from the same seed, on the same batches:
against the record (distill/cache.py) and against the live teacher (distill/live.py). Both are read
on the same dev items against the teacher's full distribution: the training's loss, 0.7 KL(teacher
|| student) + 0.3 cross-entropy, in nats a token. The ratio of the two has a 95 % interval over the
seeds (t). Time is the process's CPU time of a trainer's step, reading rows included, with one
thread, since other work may share the cores, in turn, with an interval over the rounds.

Beside it: bytes a token, the pass that is paid once, and what of KL the tail really hides from the
trained student, beside the bound that is printed.

    python benchmarks/teacher_cache.py --task out/demo-task.jsonl      # half an hour on one core
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Sequence
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
from flyweight.distill.cache import record
from flyweight.distill.divergences import Blend
from flyweight.distill.live import LiveDistillation
from flyweight.distill.losses import Distillation, Objective
from flyweight.distill.packed import bytes_a_token
from flyweight.distill.teacher import answer_rows, record_teacher
from flyweight.distill.trainer import Probe, Row, Schedule, collate, train
from flyweight.distill.wish import Wish
from flyweight.make.effort import BATCH, KL, LEARNING_RATE
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

console = Console(highlight=False, width=110)


@dataclass
class Setup:
    """The teacher, its record of train, plain rows of both splits, and the cuts."""

    teacher: Any
    recorded: list[Row]
    train: list[Row]
    dev: list[Row]
    cuts: dict[str, Any]
    batch: int  # rows of a step

    def student(self, size: str) -> Any:
        """A fresh cut."""
        return copy.deepcopy(self.cuts[size]).requires_grad_(True)

    def arms(self) -> dict[str, tuple[list[Row], Objective]]:
        """What each arm learns from."""
        live = LiveDistillation(self.teacher, Blend(KL))
        return {"record": (self.recorded, Distillation(KL)), "live": (self.train, live)}


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
    again = record(place, wish, lambda: teacher).rows()
    console.print(f"The record: {found}")
    console.print(
        f"On disk {size / wish.tokens:.1f} bytes a token; written once in {once:.1f} s of CPU, "
        f"opened and checked in {time.process_time() - began:.2f} s. By vocabulary: "
        + ", ".join(f"{n:,}: {bytes_a_token(64, n)}" for n in VOCABULARIES)
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


def losses(setup: Setup, size: str, steps: int, seed: int) -> dict[str, float]:
    """Dev loss of both arms from one seed; of the record's, also what the tail hides of KL."""
    judge, found = LiveDistillation(setup.teacher, Blend(KL)), {}
    for name, (rows, objective) in setup.arms().items():
        model = setup.student(size)
        schedule = Schedule(steps, setup.batch, LEARNING_RATE, seed=seed)
        train(model, rows, objective, schedule, f"{size}, {name}, seed {seed}")
        found[name] = read(model, setup.dev, judge)
        if name == "record":
            whole = read(model, setup.dev, LiveDistillation(setup.teacher, Blend(1.0)))
            seen = read(model, record_teacher(setup.teacher, setup.dev), Distillation(1.0))
            found["KL"], found["hidden"] = whole, whole - seen
    return found


def seconds(setup: Setup, size: str, rounds: int) -> np.ndarray:
    """float [rounds, 2]: CPU seconds of a trainer's step against the record and live, in turn."""
    arms = list(setup.arms().values())
    taken = np.zeros((rounds, 2))
    clock = Probe(frozenset({2, 2 + ROUND}), lambda _: {"cpu": time.process_time()})
    for number in range(rounds):
        for arm in (0, 1) if number % 2 else (1, 0):
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
    told = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as scratch:
        place = Path(scratch) / "record"
        setup = set_up(told.task, told.train, told.held_out, told.batch, place)
        for size in told.sizes:
            if told.rounds > 1:
                taken = seconds(setup, size, told.rounds)
                mean = taken.mean(0)
                console.print(
                    f"{size}: a step takes {mean[0]:.3f} s from the record, {mean[1]:.3f} s live: "
                    f"x{ratio(taken[:, 1] / taken[:, 0])}"
                )
            if told.seeds < 2:
                continue
            found = []
            for seed in range(told.seeds):
                found.append(losses(setup, size, told.steps, seed))
                console.print("   ", {name: round(value, 5) for name, value in found[-1].items()})
            against = ratio([each["record"] / each["live"] for each in found])
            hidden, whole = (np.mean([each[name] for each in found]) for name in ("hidden", "KL"))
            console.print(
                f"{size}: dev loss from the record x{against} that of live, {told.steps} steps; "
                f"the tail hides {hidden:.4f} of {whole:.4f} nats of KL"
            )


if __name__ == "__main__":
    main()
