"""How often does a verdict "passes" come out on re-splits of real scores, with the truth known?

Banking77 (Casanueva et al. 2020, arXiv:2003.04807) has 3,080 test questions, 40 for each of 77
intents. The teacher is a ridge classifier on TF-IDF words and word pairs; its students have fewer
features, fewer train items, or weights of few bits. Each answer scores 0 or 1, and the ratio over
all 3,080 is the truth. Tests are then drawn anew, each with a bar just above the truth, so that
every "passes" is wrong; and with a bar 0.03 below it, where every "passes" is right (the power).

Tests are drawn with replacement: each is then a fresh sample of a population whose ratio is known
exactly. A re-split in the plain sense (without replacement) is there for comparison: it takes a
tenth of the pool, so that limits look about 5 % wider than they need be. Intents are drawn as well,
whole or five questions of each, and told as groups: their questions go wrong together. The peers
are percentile bootstraps: over items, which most evaluation scripts use, and over groups.

    python benchmarks/verdict_resplits.py    # two minutes on one core
"""

from __future__ import annotations

import argparse
import csv
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse, stats

from flyweight.progress import track
from flyweight.tasks.statistics import paired_ratio
from flyweight.tasks.verdict import judge
from verdict_coverage import RESAMPLES, peer_low

SHARED = Path(os.environ.get("FLYWEIGHT_SHARED", Path(__file__).parents[2] / "shared"))
JUST_ABOVE = 0.0005  # the bar over the truth
ROOM = 0.03  # the truth over the bar, for the power
PENALTY = 0.3
STEPS = 60  # of conjugate gradients
METHODS = ("flyweight", "bootstrap over items", "bootstrap over groups")

Draw = Callable[[np.random.Generator, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Student:
    """A weaker classifier: its name, and a score of 0 or 1 for each test question [n]."""

    name: str
    right: np.ndarray


def read(name: str) -> tuple[list[str], list[str]]:
    with (SHARED / "data" / "banking77" / name).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["category"] for row in rows]


def terms(text: str) -> Counter[str]:
    """Words and pairs of neighbours."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    return Counter(words + [f"{a} {b}" for a, b in pairwise(words)])


def tfidf(texts: list[str], weights: dict[str, float], columns: dict[str, int]) -> Any:
    """float [texts, terms], sparse, rows of length 1."""
    rows, places, values = [], [], []
    for row, text in enumerate(texts):
        found = {t: n * weights[t] for t, n in terms(text).items() if t in columns}
        length = sum(value**2 for value in found.values()) ** 0.5
        rows += [row] * len(found)
        places += [columns[term] for term in found]
        values += [value / length for value in found.values()]
    return sparse.csr_matrix((values, (rows, places)), shape=(len(texts), len(columns)))


def ridge(x: Any, y: np.ndarray) -> np.ndarray:
    """W [terms, intents] with the least |xW - y|^2 + PENALTY |W|^2, by conjugate gradients."""
    w = np.zeros((x.shape[1], y.shape[1]))
    rest = x.T @ y
    way, size = rest.copy(), (rest**2).sum(0)
    for _ in range(STEPS):
        ahead = x.T @ (x @ way) + PENALTY * way
        step = size / (way * ahead).sum(0)
        w += step * way
        rest -= step * ahead
        size, old = (rest**2).sum(0), size
        way = rest + size / old * way
    return w


def rounded(w: np.ndarray, bits: int) -> np.ndarray:
    """Weights on 2^bits - 1 evenly spaced levels, symmetric, a scale for each intent."""
    levels = 2 ** (bits - 1) - 1
    scale = 3 * w.std(0) / levels
    return np.clip(np.round(w / scale), -levels, levels) * scale


def classifiers(seed: int) -> tuple[np.ndarray, np.ndarray, list[Student]]:
    """Test intents as codes [n], the teacher's scores [n], and the students."""
    (texts, labels), (asked, wanted) = read("train.csv"), read("test.csv")
    seen = Counter(term for text in texts for term in terms(text))
    common = [term for term, count in seen.most_common() if count > 1]
    weights = {term: float(np.log(len(texts) / seen[term])) for term in common}
    names = sorted(set(labels))
    targets = np.eye(len(names))[[names.index(label) for label in labels]] * 2 - 1
    codes = np.array([names.index(label) for label in wanted])
    columns = {term: place for place, term in enumerate(common)}
    x, tests = tfidf(texts, weights, columns), tfidf(asked, weights, columns)

    def score(w: np.ndarray, features: int | None = None) -> np.ndarray:
        return ((tests[:, :features] @ w).argmax(1) == codes).astype(float)

    full = ridge(x, targets)
    students = [
        Student(f"{count:,} of {len(common):,} terms", score(ridge(x[:, :count], targets), count))
        for count in (400, 700, 1_500)
    ]
    order = np.random.default_rng(seed).permutation(len(texts))
    for share in (0.2, 0.4, 0.7):
        part = order[: round(share * len(texts))]
        students.append(Student(f"{share:.0%} of train", score(ridge(x[part], targets[part]))))
    students += [Student(f"{bits} bits", score(rounded(full, bits))) for bits in (2, 3, 4)]
    return codes, score(full), students


def items(n: int, replace: bool = True) -> Draw:
    """Tests of n single questions."""

    def draw(rng: np.random.Generator, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rng.choice(len(codes), n, replace=replace), np.arange(n)

    return draw


def intents(count: int, each: int = 40) -> Draw:
    """Tests of `each` questions of `count` intents; each intent that is drawn is a group."""

    def draw(rng: np.random.Generator, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        drawn = rng.integers(0, codes.max() + 1, count)
        parts = [rng.choice(np.flatnonzero(codes == code), each, replace=False) for code in drawn]
        return np.concatenate(parts), np.repeat(np.arange(count), each)

    return draw


DESIGNS = {
    "300 questions": items(300),
    "1,000 questions": items(1_000),
    "300 questions, without replacement": items(300, replace=False),
    "60 intents, 5 questions of each (300)": intents(60, 5),
    "200 intents, 5 questions of each (1,000)": intents(200, 5),
    "8 whole intents (320)": intents(8),
    "25 whole intents (1,000)": intents(25),
}


def group_low(
    rng: np.random.Generator, student: np.ndarray, teacher: np.ndarray, groups: np.ndarray
) -> float:
    """The 5 % quantile of the ratio of means, resampling whole groups."""
    mine, yours = (np.bincount(groups, weights=scores) for scores in (student, teacher))
    index = rng.integers(0, len(mine), size=(RESAMPLES, len(mine)))
    return float(np.quantile(mine[index].sum(1) / yours[index].sum(1), 0.05))


def measure(
    draw: Draw, codes: np.ndarray, teacher: np.ndarray, student: Student, tests: int, seed: list
) -> np.ndarray:
    """How many of the tests pass wrongly and rightly, by each of METHODS: int [3, 2]."""
    rng = np.random.default_rng(seed)
    truth = student.right.mean() / teacher.mean()
    passes = np.zeros((len(METHODS), 2), dtype=int)
    for _ in range(tests):
        chosen, groups = draw(rng, codes)
        mine, yours = student.right[chosen], teacher[chosen]
        ratio = paired_ratio(mine, yours, groups.tolist())
        lows = peer_low(rng, mine, yours), group_low(rng, mine, yours, groups)
        for place, bar in enumerate((truth + JUST_ABOVE, truth - ROOM)):
            ours = judge(ratio, bar).word == "passes"
            passes[:, place] += [ours, *(low >= bar for low in lows)]
    return passes


def cells(found: np.ndarray, tests: int) -> list[str]:
    """Of one method: wrong passes with their interval, the worst student's, and the power.

    `found` int [students, 2].
    """
    n, (wrong, right) = tests * len(found), found.sum(0)
    between = stats.binomtest(int(wrong), n).proportion_ci(method="exact")
    return [
        f"{100 * wrong / n:.1f} % ({100 * between.low:.1f}-{100 * between.high:.1f})",
        f"{100 * found[:, 0].max() / tests:.1f} %",
        f"{100 * right / n:.0f} %",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="How often verdicts are wrong on real scores.")
    parser.add_argument("--tests", type=int, default=200, help="re-splits a student and design")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    codes, teacher, students = classifiers(options.seed)
    print(f"Teacher: {teacher.mean():.1%} of {len(codes):,} questions right.")
    for student in students:
        differ = int((student.right != teacher).sum())
        print(
            f"  {student.name}: {student.right.mean():.1%}, "
            f"ratio {student.right.mean() / teacher.mean():.4f}, {differ} scores differ"
        )
    n = options.tests * len(students)
    title = f"{options.tests} tests for each of {len(students)} students: n = {n:,} a row"
    table = Table(title=f"{title}; 95 % Clopper-Pearson intervals")
    table.add_column("test")
    for method in METHODS:
        for head in (f"{method}: wrong passes", "worst student", "power"):
            table.add_column(head, justify="right")
    for number, (name, draw) in enumerate(track(list(DESIGNS.items()), "drawing tests")):
        found = np.stack(
            [
                measure(draw, codes, teacher, each, options.tests, [options.seed, number, place])
                for place, each in enumerate(students)
            ]
        )  # [students, methods, 2]
        by_method = (cells(found[:, m], options.tests) for m in range(len(METHODS)))
        table.add_row(name, *chain.from_iterable(by_method))
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
