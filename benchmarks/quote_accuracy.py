"""How far is the quote from what a job takes, on a machine that has run a few?

    python benchmarks/quote_accuracy.py --runs out/quotes.jsonl    # goes on where it was

Ten jobs as people give them: mostly the demo's teacher on parts of its task, with different numbers
of items, steps, bars and scores, so that some pass with the smallest shape, some with a bigger one
and some with none; two random teachers that nothing passes. Each is quoted before and timed, from
an empty record: the first quote is a mere assumption, each further one knows the jobs before it.
The peer is the plainest rule: the mean seconds of the jobs so far. The aim: within 25 % after the
third. Every job is a process of its own, so that its peak memory and CPU seconds are its own;
CPU seconds above wall seconds times threads, or far below, tell of other load on the machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy import stats

from flyweight.demo.orders import write_task
from flyweight.folder import read_card

ROOT = Path(__file__).parents[1]
NEAR = 0.25
LEARNED_ON = 3  # jobs before the quote is held to its aim


@dataclass(frozen=True)
class Plan:
    """One job: items by split, steps, the bar and its score; `tiny` is a random teacher's width."""

    train: int
    dev: int
    test: int
    steps: int
    bar: float
    score: str = "exact"
    tiny: int = 0


PLANS = (
    Plan(600, 60, 80, 24, 0.35, "likelihood"),
    Plan(1000, 60, 100, 40, 0.5, "f1"),
    Plan(800, 60, 60, 120, 0.9, "likelihood", tiny=192),
    Plan(400, 100, 100, 20, 0.9),
    Plan(1500, 40, 60, 60, 0.6, "f1"),
    Plan(500, 60, 60, 160, 0.95, tiny=128),
    Plan(2000, 50, 150, 48, 0.97),
    Plan(1200, 50, 60, 40, 0.5, "likelihood"),
    Plan(300, 40, 40, 16, 0.8, "f1"),
    Plan(3000, 40, 100, 36, 0.5),
)


def write_part(path: Path, plan: Plan, seed: int) -> Path:
    """The demo's task with as many items of each split as the plan wants."""
    whole = write_task(path.with_name("whole.jsonl")).read_text(encoding="utf-8").splitlines()
    generator, kept = random.Random(seed), []
    for split in ("train", "dev", "test"):
        lines = [line for line in whole if json.loads(line)["split"] == split]
        kept += generator.sample(lines, getattr(plan, split))
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return path


def teacher_of(folder: Path, plan: Plan) -> Path:
    """The demo's teacher, or a random Llama whose answers end soon."""
    if not plan.tiny:
        return ROOT / "src/flyweight/demo/teacher"
    from safetensors.torch import load_file, save_file

    sys.path.insert(0, str(ROOT / "tests"))
    from conftest import save_tiny_llama

    sizes = {"hidden_size": plan.tiny, "intermediate_size": 2 * plan.tiny, "num_hidden_layers": 6}
    save_tiny_llama(folder, **sizes, max_position_embeddings=1024)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][1] *= 4
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def run_job(number: int, plan: Plan, root: Path, state: Path) -> dict[str, Any]:
    """Run one job in a process of its own: its quote beside what it took, and its CPU seconds."""
    out = root / f"job{number}"
    shutil.rmtree(out, ignore_errors=True)  # of a job that was broken off: time it whole
    out.mkdir(parents=True)
    command = [
        sys.executable, "-m", "flyweight", "make", teacher_of(out / "teacher", plan),
        "--task", write_part(out / "task.jsonl", plan, number), "--out", out / "model",
        "--effort", "quick", "--steps", plan.steps, "--score", plan.score,
        "--bar-absolute" if plan.tiny and plan.score == "exact" else "--bar", plan.bar,
    ]  # fmt: skip
    # a cache of its own: what an earlier run recorded would cost nothing
    places = {"FLYWEIGHT_STATE": str(state), "FLYWEIGHT_CACHE": str(out / "cache")}
    before, started = os.times(), time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, env=os.environ | places)
    wall, after = time.perf_counter() - started, os.times()
    card = read_card(out / "model")
    assert card.quote is not None
    shutil.rmtree(out)
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return {
        "job": number,
        "plan": asdict(plan),
        "quote": card.quote.model_dump(),
        "process_seconds": wall,
        "cpu_seconds": cpu,
        "finished": [each.level for each in card.recovery if each.fate == "finished"],
        "verdict": card.verdict.word,
    }


def run_all(jobs: int, runs: Path) -> list[dict[str, Any]]:
    """All jobs in turn; those in `runs` already are not run again.

    The state before each job is kept in a folder of its number beside `runs`, so that a job that
    was broken off leaves nothing behind for its second start to learn from.
    """
    done = [json.loads(line) for line in runs.read_text().splitlines()] if runs.exists() else []
    states = runs.with_suffix(".state")
    (states / "0").mkdir(parents=True, exist_ok=True)
    for number in range(len(done) + 1, jobs + 1):
        state = states / str(number)
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(states / str(number - 1), state)
        done.append(run_job(number, PLANS[number - 1], runs.with_suffix(".jobs"), state))
        with runs.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[-1]) + "\n")
    return done


def show_jobs(done: Sequence[dict[str, Any]], console: Console) -> None:
    """A line a job: quoted, taken, their ratio, the peer's, the load, memory and disk.

    "as it went": the ratio for what was quoted for the sizes that came to be trained to their end.
    """
    table = Table(title="Quoted / taken")
    for heading in (
        "job", "finished", "quoted s", "shortest, longest", "taken s", "CPU s", "quote", "peer",
        "as it went", "memory", "disk",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    near, peer_near, covered, known, taken = [], [], [], [], []
    for each in done:
        quote, seconds = each["quote"], each["quote"]["actual_seconds"]
        ratio = quote["seconds"] / seconds
        peer = sum(taken) / len(taken) / seconds if taken else math.nan
        low, high = quote["seconds_shortest"], quote["seconds_longest"]
        course = quote["seconds_as_it_went"] / seconds
        if each["job"] > LEARNED_ON:
            near.append(abs(ratio - 1) <= NEAR)
            peer_near.append(abs(peer - 1) <= NEAR)
            covered.append(low / (1 + NEAR) <= seconds <= high * (1 + NEAR))
            known.append(abs(course - 1) <= NEAR)
        taken.append(seconds)
        table.add_row(
            str(each["job"]), " ".join(f"{level:g}" for level in each["finished"]),
            f"{quote['seconds']:.1f}", f"{low:.0f}, {high:.0f}", f"{seconds:.1f}",
            f"{each['cpu_seconds']:.1f}", f"{ratio:.2f}", f"{peer:.2f}", f"{course:.2f}",
            *(f"{quote[name] / quote[f'actual_{name}']:.2f}" for name in ("memory", "disk")),
        )  # fmt: skip
    console.print(table)
    if not near:
        return
    rules = (
        (f"quote within {NEAR:.0%}", near),
        (f"mean of those before within {NEAR:.0%}", peer_near),
        (f"between shortest and longest, {NEAR:.0%} more allowed", covered),
        (f"within {NEAR:.0%} for the sizes that were trained", known),
    )
    for name, found in rules:
        share = stats.binomtest(sum(found), len(found)).proportion_ci()
        console.print(
            f"{name}: {sum(found)} of {len(found)} jobs after job {LEARNED_ON} "
            f"(95 %: {share.low:.0%} to {share.high:.0%})"
        )


def show_stages(done: Sequence[dict[str, Any]], console: Console) -> None:
    """The geometric mean of quoted / taken for each kind of stage, after the first jobs."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for each in done[LEARNED_ON:]:
        for stage in each["quote"]["stages"]:
            if stage["actual"] and stage["quoted"]:
                ratios[stage["name"]].append(math.log(stage["quoted"] / stage["actual"]))
    table = Table(title=f"By kind of stage, after job {LEARNED_ON}")
    for heading in ("stage", "quote / taken", "lowest", "highest", "jobs"):
        table.add_column(heading, justify="right")
    for name, logs in ratios.items():
        figures = (sum(logs) / len(logs), min(logs), max(logs))
        table.add_row(name, *(f"{math.exp(each):.2f}" for each in figures), str(len(logs)))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=len(PLANS), choices=range(1, len(PLANS) + 1))
    parser.add_argument("--runs", type=Path, default=Path("out/quote_accuracy.jsonl"))
    options = parser.parse_args()
    options.runs.parent.mkdir(parents=True, exist_ok=True)
    done = run_all(options.jobs, options.runs.absolute())
    console = Console(width=120)
    show_jobs(done, console)
    show_stages(done, console)


if __name__ == "__main__":
    main()
