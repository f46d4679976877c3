"""How often does a verdict "passes" come out for a student whose true ratio is exactly the bar?

Simulated tasks: groups of uneven size whose items share the group's fate with a given intra-group
correlation. At a true ratio of 0.95 and a bar of 0.95 every "passes" is wrong, and so is every
"falls short"; limits at 95 % allow 5 % of each. At a true ratio of 1 every "passes" is right: the
power. The peer is the percentile bootstrap over items, which most evaluation scripts use.

    python benchmarks/verdict_coverage.py            # minutes, on one core
    python benchmarks/verdict_coverage.py --tasks 2000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from flyweight.progress import track
from flyweight.tasks.statistics import paired_ratio
from flyweight.tasks.verdict import judge

BAR = 0.95
RESAMPLES = 1_000  # of the peer
Scores = tuple[np.ndarray, np.ndarray, np.ndarray]  # student, teacher, group code: [n] each


@dataclass(frozen=True)
class Setting:
    """One row: `kind` of score, groups, mean items a group, intra-group correlation."""

    kind: str
    groups: int
    size: int
    correlation: float


@dataclass(frozen=True)
class Rates:
    """Counts over `tasks` simulated tasks at the bar and as many at 1, ours and the peer's."""

    tasks: int
    wrong_pass: int
    wrong_short: int
    right_pass: int
    peer_wrong_pass: int
    peer_right_pass: int


def settings() -> Iterator[Setting]:
    for groups, size, correlation in product((20, 50, 125), (1, 4, 10), (0.0, 0.1, 0.3)):
        if size > 1 or correlation == 0:
            yield Setting("0/1", groups, size, correlation)
    for kind, groups, correlation in product(("f1", "bits"), (20, 125), (0.0, 0.3)):
        yield Setting(kind, groups, 8, correlation)


def variants(kind: str) -> list[tuple[float, float]]:
    """(share of items that differ, teacher's accuracy); 0: as few as the ratio allows."""
    if kind == "0/1":
        return list(product((0.0, 0.05, 0.1), (0.97, 0.6)))
    return [(0.1, 0.97)] if kind == "bits" else [(0.0, 0.97), (0.1, 0.6)]


def shared(rng: np.random.Generator, codes: np.ndarray, correlation: float, draw: Callable):
    """Draws [n] of which any two of one group are correlated: some items take the group's draw."""
    own, of_group = draw(len(codes)), draw(codes.max() + 1)[codes]
    return np.where(rng.random(len(codes)) < np.sqrt(correlation), of_group, own)


def simulate(
    rng: np.random.Generator, setting: Setting, ratio: float, differ: float, accuracy: float
) -> Scores:
    """One task: scores and groups drawn from a population whose ratio of means is `ratio`."""
    sizes = rng.integers(1, 2 * setting.size, size=setting.groups)
    codes = np.repeat(np.arange(setting.groups), sizes)
    if setting.kind == "bits":  # bits per byte, swapped: the teacher's over the student's
        better = shared(rng, codes, setting.correlation, lambda k: rng.gamma(4.0, 0.25, k))
        noise = shared(rng, codes, setting.correlation, lambda k: rng.lognormal(-0.02, 0.2, k))
        return ratio * better * noise, better, codes
    kept = 0.5 if setting.kind == "f1" else 0.0  # mean score of a lost answer
    gap = (1 - ratio) * accuracy / (1 - kept)
    differ = max(differ, gap)
    gained = min((differ - gap) / 2, 1 - accuracy)
    lost = gained + gap
    chances = [accuracy - lost, gained, lost, 1 - accuracy - gained]  # both, student, teacher, none
    fate = shared(rng, codes, setting.correlation, lambda k: rng.choice(4, k, p=chances))
    part = rng.random(len(codes)) if setting.kind == "f1" else np.zeros(len(codes))
    student = np.where(fate <= 1, 1.0, np.where(fate == 2, part, 0.0))
    teacher = np.where(fate % 2 == 0, 1.0, np.where(fate == 1, part, 0.0))
    return student, teacher, codes


def peer_low(rng: np.random.Generator, student: np.ndarray, teacher: np.ndarray) -> float:
    """The 5 % quantile of the ratio of means, resampling items: the naive lower limit."""
    kinds, counts = np.unique(np.stack([student, teacher]), axis=1, return_counts=True)
    if len(counts) <= 4:  # 0/1 scores: the same draws, faster
        drawn = rng.multinomial(len(student), counts / len(student), size=RESAMPLES)
        return float(np.quantile((drawn @ kinds[0]) / np.maximum(drawn @ kinds[1], 1), 0.05))
    index = rng.integers(0, len(student), size=(RESAMPLES, len(student)))
    return float(np.quantile(student[index].sum(1) / teacher[index].sum(1), 0.05))


def measure(setting: Setting, tasks: int, seed: int) -> list[Rates]:
    """The rates of every variant of a setting."""
    found = []
    for number, (differ, accuracy) in enumerate(variants(setting.kind)):
        rng = np.random.default_rng([seed, number])
        count = dict.fromkeys(("wrong_pass", "wrong_short", "right_pass"), 0)
        peer = {BAR: 0, 1.0: 0}
        for _, ratio in product(range(tasks), (BAR, 1.0)):
            student, teacher, codes = simulate(rng, setting, ratio, differ, accuracy)
            word = judge(paired_ratio(student, teacher, codes.tolist()), BAR).word
            count["wrong_pass"] += ratio == BAR and word == "passes"
            count["wrong_short"] += ratio == BAR and word == "falls short"
            count["right_pass"] += ratio != BAR and word == "passes"
            peer[ratio] += peer_low(rng, student, teacher) >= BAR
        found.append(Rates(tasks, **count, peer_wrong_pass=peer[BAR], peer_right_pass=peer[1.0]))
    return found


def row(setting: Setting, rates: list[Rates]) -> list[str]:
    tasks = sum(rate.tasks for rate in rates)

    def share(name: str) -> str:
        return f"{sum(getattr(rate, name) for rate in rates) / tasks:.1%}"

    wrong = stats.binomtest(sum(rate.wrong_pass for rate in rates), tasks)
    between = wrong.proportion_ci(method="wilson")
    worst = max(rate.wrong_pass / rate.tasks for rate in rates)
    peer_worst = max(rate.peer_wrong_pass / rate.tasks for rate in rates)
    return [
        setting.kind,
        str(setting.groups),
        str(setting.size),
        f"{setting.correlation:.1f}",
        f"{share('wrong_pass')} ({100 * between.low:.1f}-{100 * between.high:.1f})",
        f"{worst:.1%}",
        share("wrong_short"),
        share("right_pass"),
        f"{share('peer_wrong_pass')}",
        f"{peer_worst:.1%}",
        share("peer_right_pass"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="How often verdicts are wrong.")
    parser.add_argument("--tasks", type=int, default=400, help="simulated tasks a cell")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = Table(title=f"Verdicts at the bar ({options.tasks} tasks a cell, up to 6 cells a row)")
    heads = ["score", "groups", "items/group", "corr.", "wrong passes", "worst cell"]
    heads += ["wrong falls short", "power at 1.0"]
    heads += ["item bootstrap: wrong", "worst cell", "power"]
    for head in heads:
        table.add_column(head, justify="right")
    worst = 0.0
    for number, setting in enumerate(track(list(settings()), "simulating")):
        rates = measure(setting, options.tasks, options.seed + 1_000 * number)
        worst = max(worst, *(rate.wrong_pass / rate.tasks for rate in rates))
        table.add_row(*row(setting, rates))
    console = Console(width=150)
    console.print(table)
    console.print(f"Worst single cell: {worst:.1%} wrong passes; the limits allow 5 %.")


if __name__ == "__main__":
    main()
