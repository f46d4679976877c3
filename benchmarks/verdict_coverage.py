"""How often does a verdict "passes" come out for a student whose true ratio is not above the bar?

Simulated tasks: groups of uneven size whose items share the group's fate with a given intra-group
correlation. The bar is 0.95. At a true ratio of 0.945 or 0.95 every "passes" is wrong, and at 0.95
so is every "falls short"; limits at 95 % allow 5 % of each. At a true ratio of 1 every "passes" is
right: the power. The peer is the percentile bootstrap over items, which most evaluation scripts
use. A cell is one setting with one share of items that differ and one accuracy of the teacher.

    python benchmarks/verdict_coverage.py                 # 300 tasks a cell: minutes, on one core
    python benchmarks/verdict_coverage.py --tasks 2000    # a quarter of an hour
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from flyweight.progress import track
from flyweight.tasks.statistics import paired_ratio
from flyweight.tasks.verdict import holm, judge

BAR = 0.95
BELOW = 0.945  # a truth that does not reach the bar, and is hard to tell from it
ALLOWED = 0.05  # wrong passes
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
    """Counts over `tasks` simulated tasks below the bar, at it and at 1, ours and the peer's."""

    tasks: int
    below_pass: int
    wrong_pass: int
    wrong_short: int
    right_pass: int
    peer_below_pass: int
    peer_wrong_pass: int
    peer_right_pass: int


def settings() -> Iterator[Setting]:
    for groups, size, correlation in product((20, 50, 125), (1, 4, 10), (0.0, 0.1, 0.3)):
        if size > 1 or correlation == 0:
            yield Setting("0/1", groups, size, correlation)
    for groups, correlation in product((8, 25, 50), (0.1, 0.3)):
        yield Setting("0/1", groups, 40, correlation)
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
        words = {truth: Counter[str]() for truth in (BELOW, BAR, 1.0)}
        peer = Counter[float]()
        for _, truth in product(range(tasks), words):
            student, teacher, codes = simulate(rng, setting, truth, differ, accuracy)
            words[truth][judge(paired_ratio(student, teacher, codes.tolist()), BAR).word] += 1
            peer[truth] += peer_low(rng, student, teacher) >= BAR
        found.append(
            Rates(
                tasks,
                below_pass=words[BELOW]["passes"],
                wrong_pass=words[BAR]["passes"],
                wrong_short=words[BAR]["falls short"],
                right_pass=words[1.0]["passes"],
                peer_below_pass=peer[BELOW],
                peer_wrong_pass=peer[BAR],
                peer_right_pass=peer[1.0],
            )
        )
    return found


def counted(wrong: int, tasks: int) -> str:
    """ "12 of 300 = 4.0 % (95 % Clopper-Pearson 2.1 to 6.9)"."""
    between = stats.binomtest(wrong, tasks).proportion_ci(method="exact")
    return (
        f"{wrong:,} of {tasks:,} = {100 * wrong / tasks:.1f} % "
        f"(95 % Clopper-Pearson {100 * between.low:.1f} to {100 * between.high:.1f})"
    )


def pooled(cells: list[Rates], name: str) -> str:
    return counted(sum(getattr(cell, name) for cell in cells), sum(cell.tasks for cell in cells))


def sentence(cells: list[Rates]) -> list[str]:
    """What the issue promises, with n and intervals, and the peer beside it."""
    tasks = cells[0].tasks
    able = [cell for cell in cells if cell.right_pass]
    worst = max(cells, key=lambda cell: cell.wrong_pass)
    above = [cell for cell in cells if cell.wrong_pass > ALLOWED * tasks]
    ps = [float(stats.binom.sf(cell.wrong_pass - 1, tasks, ALLOWED)) for cell in cells]
    surely = sum(p < 0.05 for p in holm(ps))
    lines = [
        f"""The verdict is honest: {tasks:,} simulated tasks with a known true ratio around the bar:
        'passes' when the truth is below it in at most 5 %: {pooled(cells, "below_pass")} at a truth
        of {BELOW}, {pooled(cells, "wrong_pass")} at the bar itself, over {len(cells)} cells of
        {tasks:,} tasks.""",
        f"""The {len(able)} cells in which a perfect student can pass:
        {pooled(able, "below_pass")} at {BELOW}, {pooled(able, "wrong_pass")} at the bar.""",
        f"""The worst cell at the bar: {counted(worst.wrong_pass, tasks)}; above 5 % are
        {len(above)} of {len(cells)} cells, beyond chance (one-sided binomial test, Holm)
        {surely}.""",
        f"""The percentile bootstrap over items: {pooled(cells, "peer_below_pass")} at {BELOW},
        {pooled(cells, "peer_wrong_pass")} at the bar.""",
    ]
    return [" ".join(line.split()) for line in lines]


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
    parser.add_argument("--tasks", type=int, default=300, help="simulated tasks a cell")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = Table(title=f"Verdicts at the bar ({options.tasks} tasks a cell, up to 6 cells a row)")
    heads = ["score", "groups", "items/group", "corr.", "wrong passes", "worst cell"]
    heads += ["wrong falls short", "power at 1.0"]
    heads += ["item bootstrap: wrong", "worst cell", "power"]
    for head in heads:
        table.add_column(head, justify="right")
    cells: list[Rates] = []
    for number, setting in enumerate(track(list(settings()), "simulating")):
        rates = measure(setting, options.tasks, options.seed + 1_000 * number)
        cells += rates
        table.add_row(*row(setting, rates))
    Console(width=150).print(table)
    print(*sentence(cells), sep="\n")


if __name__ == "__main__":
    main()
