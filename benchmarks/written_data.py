"""What does a student lose that learns from what its teacher wrote instead of real train items?

From the demo's train split only a few prompts are kept (one of a phrasing); the embedded teacher
writes more (`write-data`). Students of one shape, cut from the teacher by those few prompts alone,
are then distilled for the same steps, batches and seeds on: the real train items, as many real ones
as there are written ones, the written ones with the few, and the few alone. Read is the share of
held-out items that greedy decoding answers exactly. The gap to the real items is paired by item,
averaged over the seeds, with a 95 % interval by bootstrap over groups of held-out items; the
trained models are given, and the range over seeds stands beside it.

    python benchmarks/written_data.py --runs out/written.jsonl     # an hour or two on one core
    python benchmarks/written_data.py --written 400 --steps 250 --seeds 2    # half an hour

With `--runs` each training is kept in that file, and what was written beside it: a second command
goes on from there.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

import flyweight
from flyweight.anatomy import Shape
from flyweight.checkpoint import open_checkpoint
from flyweight.demo.orders import write_task
from flyweight.distill.losses import Distillation
from flyweight.distill.objectives import KL
from flyweight.distill.teacher import answer_rows, record_teacher
from flyweight.distill.trainer import Row, Schedule, train
from flyweight.make.effort import BATCH, LEARNING_RATE
from flyweight.runtime.forced import greedy_matches
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.cut import cut_model
from flyweight.tasks.encode import encode_items
from flyweight.tasks.items import Item
from flyweight.tasks.read import read_task

DEMO = "src/flyweight/demo/teacher"
SIZES = {"layers": 4, "hidden": 128, "mlp": 512}
RESAMPLES = 4000
ARMS = ("real", "as many real", "written", "few")

console = Console(highlight=False, width=110)


@dataclass
class Setup:
    """The teacher, its cut, the rows of each arm, and what the students are read on."""

    teacher: Any
    cut: Any
    items: dict[str, tuple[Item, ...]]
    held_out: dict[str, tuple[Item, ...]]
    tokenizer: Any
    context: int
    recorded: dict[str, list[Row]] = field(default_factory=dict)

    def rows(self, arm: str) -> list[Row]:
        """An arm's items with what the teacher says to them, recorded once."""
        if arm not in self.recorded:
            rows = answer_rows(self.examples(self.items[arm]))
            self.recorded[arm] = record_teacher(self.teacher, rows)
        return self.recorded[arm]

    def examples(self, items: tuple[Item, ...]) -> Any:
        return encode_items(self.tokenizer, items, "demo", self.context)

    def read(self, model: Any) -> dict[str, list[int]]:
        """0 or 1 of each held-out item, by split."""
        found = {}
        for name, items in self.held_out.items():
            pairs = [(each.prompt, each.answer) for each in self.examples(items)]
            found[name] = greedy_matches(model, pairs, title="").astype(int).tolist()
        return found


def few_task(whole: Path, place: Path, count: int) -> Path:
    """The task with `count` train items alone, each of another group; dev and test as they are."""
    rows = [json.loads(line) for line in whole.read_text(encoding="utf-8").splitlines()]
    groups: dict[str, list[Any]] = {}
    for row in rows:
        if row["split"] == "train":
            groups.setdefault(row["group"], []).append(row)
    rng = random.Random(0)
    kept = [rng.choice(groups[name]) for name in rng.sample(sorted(groups), count)]
    kept += [row for row in rows if row["split"] != "train"]
    place.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    return place


def set_up(work: Path, few: int, written: int) -> Setup:
    """The data of every arm, and the student: its cut knows the few prompts alone."""
    work.mkdir(parents=True, exist_ok=True)
    whole = write_task(work / "demo.jsonl")
    small = few_task(whole, work / f"few-{few}.jsonl", few)
    out = work / f"written-{few}.jsonl"
    flyweight.write_data(DEMO, out, task=small, items=written)
    task, source = read_task(whole), open_checkpoint(DEMO)
    made = read_task(out).train
    seeds = read_task(small).train
    items = {
        "real": task.train,
        "as many real": tuple(random.Random(1).sample(task.train, len(made))),
        "written": made,
        "few": seeds,
    }
    teacher, tokenizer = source.model(), source.tokenizer()
    held_out = {"dev": task.dev, "test": task.test}
    setup = Setup(teacher, None, items, held_out, tokenizer, source.context)
    sequences = [each.ids.tolist() for each in setup.examples(seeds)]
    importance = measure_importance(teacher, source.family, sequences)
    shape: Shape = source.shape.with_sizes(**SIZES)
    setup.cut = cut_model(teacher, source.family, importance.keep(source.shape, shape))
    count = source.family.count(shape, source.config)
    console.print(f"{shape}: {count:,} of {source.parameters:,} parameters")
    return setup


def run(setup: Setup, arm: str, steps: int, seed: int) -> dict[str, Any]:
    """One student's training and what it answers; tokens are those of all batches, about."""
    rows = setup.rows(arm)
    model = copy.deepcopy(setup.cut).requires_grad_(True)
    schedule = Schedule(steps, BATCH, LEARNING_RATE, seed=seed)
    train(model, rows, Distillation(KL), schedule, f"{arm}, seed {seed}")
    tokens = float(np.mean([len(row["input_ids"]) for row in rows])) * steps * BATCH
    return {"arm": arm, "steps": steps, "seed": seed, "n": len(rows), "tokens": tokens} | (
        setup.read(model)
    )


def gap(first: np.ndarray, second: np.ndarray, groups: list[str]) -> tuple[float, float, float]:
    """mean(first - second) over items [n] in percentage points, with its interval by groups."""
    names, codes = np.unique(groups, return_inverse=True)
    sums = np.bincount(codes, (first - second) * 100)
    sizes = np.bincount(codes)
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(sums.sum() / sizes.sum()), float(low), float(high)


def report(setup: Setup, known: list[dict[str, Any]]) -> None:
    """Each arm's share right, and its gap to the real items."""
    arms = [arm for arm in ARMS if any(each["arm"] == arm for each in known)]
    for split, items in setup.held_out.items():
        groups = [item.group for item in items]
        right = {
            arm: np.array([each[split] for each in known if each["arm"] == arm], dtype=float)
            for arm in arms
        }
        console.print(f"{split}: {len(items)} items in {len(set(groups))} groups")
        for arm in arms:
            each = right[arm].mean(1) * 100
            [n] = {one["n"] for one in known if one["arm"] == arm}
            tokens = np.mean([one["tokens"] for one in known if one["arm"] == arm])
            told = f"  {arm:<13} {n:>5} items, {tokens / 1e6:.2f} M tokens: {each.mean():.1f} %"
            told += f" ({each.min():.1f} to {each.max():.1f}, {len(each)} seeds)"
            if arm != arms[0]:
                found = gap(right[arm].mean(0), right[arms[0]].mean(0), groups)
                told += (
                    f"; to {arms[0]} {found[0]:+.1f} points ({found[1]:+.1f} to {found[2]:+.1f})"
                )
            console.print(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--few", type=int, default=64, help="prompts that are kept of train")
    parser.add_argument("--written", type=int, default=2000, help="items that the teacher writes")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--runs", type=Path, default=Path("out/written.jsonl"))
    told = parser.parse_args()
    torch.set_num_threads(1)
    setup = set_up(told.runs.with_suffix(".data"), told.few, told.written)
    known: list[dict[str, Any]] = []
    if told.runs.exists():
        known = [json.loads(line) for line in told.runs.read_text(encoding="utf-8").splitlines()]
    sizes = {arm: len(items) for arm, items in setup.items.items()}
    wanted = [(arm, told.steps, sizes[arm]) for arm in ARMS]
    known = [each for each in known if (each["arm"], each["steps"], each["n"]) in wanted]
    for seed in range(told.seeds):
        for arm in told.arms:
            if any((each["arm"], each["seed"]) == (arm, seed) for each in known):
                continue
            known.append(run(setup, arm, told.steps, seed))
            with told.runs.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[-1]) + "\n")
    report(setup, known)


if __name__ == "__main__":
    main()
