"""Which learning rate suits students of which width?

Students of several sizes are cut from one teacher, mended as `make` does beyond `--effort quick`,
and distilled with the default loss for the same steps and batches at several rates, each falling
to zero. Read are the held-out answers at the end: the share that greedy decoding gives exactly, and
nats a token. In brackets the difference to the rate that `make` would take (paired bootstrap over
groups, 95 %; the trained models are given).

    python benchmarks/rates.py demo --runs out/rates-demo.jsonl          # half an hour on one core
    python benchmarks/rates.py babyllama --runs out/rates-baby.jsonl

With `--runs` each training is kept in that file, and a second command goes on from there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console

import plateau
from flyweight.distill.losses import Distillation
from flyweight.distill.objectives import KL
from flyweight.distill.trainer import Schedule, train
from flyweight.make.effort import BATCH, learning_rate
from race import Judge, read

console = Console(highlight=False, width=150)


def learn(setup: plateau.Setup, rate: float, steps: int, seed: int) -> dict[str, list[float]]:
    """What a student of the setup answers after its training."""
    model = setup.start("cut").requires_grad_(True)
    schedule = Schedule(steps, BATCH, rate, seed=seed)
    train(model, setup.rows, Distillation(KL), schedule, f"{rate:g}, seed {seed}")
    exact, nats = read(model, setup.held_out)
    return {"exact": exact, "nats": nats}


class Runs:
    """The trainings so far on one task with one teacher, kept in a file when there is one."""

    def __init__(self, path: Path | None, told: argparse.Namespace) -> None:
        self.path, self.known = path, {}
        self.asked = (told.case, str(told.teacher or ""), told.intents, told.train)
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                key, found = json.loads(line)
                self.known[tuple(key)] = found

    def need(
        self, setup: plateau.Setup, width: int, count: int, rate: float, steps: int, seed: int
    ) -> dict[str, list[float]]:
        """What that training gave, which is made unless it is known."""
        key = (*self.asked, width, count, rate, steps, seed)
        if key not in self.known:
            self.known[key] = learn(setup, rate, steps, seed)
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, self.known[key]]) + "\n")
        return self.known[key]


def report(judge: Judge, found: dict[float, list[dict[str, list[float]]]], usual: float) -> None:
    """A line for each rate."""
    means = {
        rate: {name: np.mean([each[name] for each in made], axis=0) for name in ("exact", "nats")}
        for rate, made in found.items()
    }
    for rate, mean in means.items():
        said = f"  {rate:g}:"
        for name, factor in (("exact", 100.0), ("nats", 1.0)):
            value = judge.mean(mean[name], name == "nats") * factor
            said += f"  {name} {value:.1f} %" if name == "exact" else f"  {name} {value:.4f}"
            if rate != usual and usual in means:
                gap = judge.difference(mean[name], means[usual][name], name == "nats")
                low, high = (each * factor for each in gap[1:])
                said += f" ({low:+.4f} to {high:+.4f})" if factor == 1 else (
                    f" ({low:+.1f} to {high:+.1f})"
                )  # fmt: skip
        console.print(said)


def main() -> None:
    """Train and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=("demo", "babyllama", "banking77"))
    parser.add_argument("--teacher", type=Path, help="another one than the case's own")
    parser.add_argument("--intents", type=int, default=77, help="of banking77, as it was taught")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.33])
    parser.add_argument("--train", type=int, default=3000, help="train items, at most")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0],
                        help="of the rate that make would take")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runs", type=Path, help="where runs are kept, to go on from there")
    told = parser.parse_args()
    torch.set_num_threads(1)
    runs = Runs(told.runs, told)
    with TemporaryDirectory() as scratch:
        teacher, task, score = plateau.find_case(told, Path(scratch))
        for keep in told.keep:
            setup = plateau.set_up(str(teacher), task, score, keep, told.train, mended=True)
            width, count = setup.cut.config.hidden_size, setup.cut.num_parameters()
            usual = learning_rate(width)
            found = {
                usual * factor: [
                    runs.need(setup, width, count, usual * factor, told.steps, seed)
                    for seed in range(told.seeds)
                ]
                for factor in told.factors
            }
            judge = Judge(setup.counts, setup.groups, likelihood=score == "likelihood")
            console.print(f"{told.case}: hidden {width}, {count / 1e6:.2f} M, {told.steps} steps")
            report(judge, found, usual)


if __name__ == "__main__":
    main()
