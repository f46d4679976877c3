"""What does the search buy, against the best of a fixed grid and random search at equal work?

All three cut and distil the same teacher on the same task and choose on dev by the same rule: the
smallest file whose lower limit reaches the bar. The fixed grid trains its levels to the end, small
to big, until one passes; a second one takes the search's own levels, so that what remains is
what halving saves. Random search draws shapes of the grid at any level and trains each to the
end, as long as it has done no more work than the search did. Work is parameters x steps, which no
other load of the machine can move as it moves seconds; those are shown beside it.

    python benchmarks/search_value.py src/flyweight/demo/teacher --task out/demo-task.jsonl \
        --out out/search --effort quick --seeds 3
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from flyweight.distill.resume import newest_checkpoint
from flyweight.make.budget import Budgets
from flyweight.make.effort import EFFORTS
from flyweight.make.job import Job
from flyweight.make.options import check_options
from flyweight.make.run import prepare_job
from flyweight.make.search import search
from flyweight.make.store import open_store
from flyweight.make.students import Candidate, Contender, choose, passes
from flyweight.make.trials import distillation, learn, measure_contender

FIXED = (0.2, 0.35, 0.6)  # shares of the teacher's parameters


def trained_seconds(job: Job, contenders: list[Contender]) -> float:
    """What training these contenders as far as they are has taken."""
    total = 0.0
    for each in contenders:
        lesson = distillation(job, each)
        done = newest_checkpoint(job.store.grown(lesson.kind, lesson.inputs, lesson.label))
        if done is not None and each.step:
            total += done.trained().until(each.step).seconds
    return total


def work(contenders: list[Contender]) -> float:
    """Parameters x steps, in millions x thousands."""
    return sum(each.ranked.parameters * each.step for each in contenders) / 1e9


def to_the_end(job: Job, contender: Contender) -> None:
    """Train a contender fully and measure it."""
    learn(job, distillation(job, contender), contender.full_steps)
    contender.step = contender.full_steps
    measure_contender(job, contender)


def fixed_grid(job: Job, levels: Sequence[float]) -> list[Contender]:
    """The nearest shape of each level, small to big, until one passes."""
    done = []
    for level in levels:
        for ranked in job.ranked(level)[:1]:
            done.append(Contender(ranked, job.steps))
            to_the_end(job, done[-1])
            if any(made.ratio.low >= job.options.bar for made in done[-1].candidates):
                return done
    return done


def random_search(job: Job, most: float, seed: int) -> list[Contender]:
    """Shapes drawn at random, trained to the end while less work is done than `most`."""
    generator = random.Random(seed)
    pool = [ranked for level in job.effort.levels for ranked in job.ranked(level)]
    done: list[Contender] = []
    while pool and (not done or work(done) < most):
        ranked = pool.pop(generator.randrange(len(pool)))
        done.append(Contender(ranked, job.steps))
        to_the_end(job, done[-1])
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("teacher")
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="its stages are kept and reused")
    parser.add_argument("--bar", type=float, default=0.95)
    parser.add_argument("--effort", choices=list(EFFORTS), default="quick")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=3, help="random searches")
    told = parser.parse_args()
    options = check_options(
        told.teacher, told.task, told.out, told.bar, None, "exact", "bytes", told.effort, Budgets(),
        told.steps, 0,
    )  # fmt: skip
    plan = prepare_job(options, "this")
    table = Table(title=f"Smallest that passes {told.bar:.0%} on dev, {told.task.stem}")
    for heading in (
        "method",
        "trained",
        "work",
        "seconds",
        "choice",
        "bytes",
        "kept at least",
        "passes",
    ):
        table.add_column(heading, justify="left" if heading in ("method", "choice") else "right")

    def show(method: str, job: Job, contenders: list[Contender]) -> None:
        candidates: list[Candidate] = [made for each in contenders for made in each.candidates]
        chosen = choose(candidates, options)
        table.add_row(
            method,
            str(len([each for each in contenders if each.step])),
            f"{work(contenders):.2f}",
            f"{trained_seconds(job, contenders):.0f}",
            chosen.name,
            f"{chosen.bytes:,}",
            f"{chosen.ratio.low:.1%}",
            "yes" if passes(chosen, options) else "no",
        )

    with open_store(told.out) as store:
        options = replace(options, threads=int(store.fixed("threads", torch.get_num_threads())))
        job = Job(options, plan.teacher, plan.task, plan.scorer, plan.sizes, store)
        found = search(job).contenders
        show(f"search, {told.effort}", job, found)
        show("fixed grid, small to big", job, fixed_grid(job, FIXED))
        show("the search's own levels, small to big", job, fixed_grid(job, job.effort.levels))
        for seed in range(told.seeds):
            show(f"random search, seed {seed}", job, random_search(job, work(found), seed))
    Console().print(table)


if __name__ == "__main__":
    main()
