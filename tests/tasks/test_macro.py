"""Macro-F1 against its definition by label, and its intervals against what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from flyweight.tasks.score import scorer
from flyweight.tasks.statistics import mean_interval, paired_ratio

LABELS = np.array(["lost", "stolen", "top up", "refund"])


def by_label(said: list[str], wanted: list[str]) -> float:
    """The mean over labels of 2PR / (P + R), 0 where a label is never right.

    Whatever is never wanted is one label.
    """
    said = [text if text in wanted else "something else" for text in said]
    found = []
    for label in {*said, *wanted}:
        right = sum(s == label == w for s, w in zip(said, wanted, strict=True))
        if right:
            precision, recall = right / said.count(label), right / wanted.count(label)
            found.append(2 * precision * recall / (precision + recall))
        else:
            found.append(0.0)
    return float(np.mean(found))


def drawn(generator: np.random.Generator, n: int, right: float) -> tuple[list[str], list[str]]:
    """Answers of which about `right` are as wanted; labels from common to rare."""
    wanted = generator.choice(LABELS, n, p=[0.55, 0.25, 0.15, 0.05])
    guessed = generator.choice(LABELS, n)
    said = np.where(generator.random(n) < right, wanted, guessed)
    return said.tolist(), wanted.tolist()


@pytest.mark.parametrize("right", [0.0, 0.3, 0.9, 1.0])
def test_the_mean_is_macro_f1(right: float) -> None:
    generator = np.random.default_rng(int(right * 10))
    for n in (1, 7, 200):
        said, wanted = drawn(generator, n, right)
        scores = scorer("macro-f1").scores([f" {text}\n" for text in said], wanted)
        assert scores.shape == (n,)
        assert scores.mean() == pytest.approx(by_label(said, wanted), abs=1e-12)


def test_a_label_that_is_only_said_counts() -> None:
    scores = scorer("macro-f1").scores(["a", "a", "c"], ["a", "a", "a"])
    assert scores.mean() == pytest.approx((0.8 + 0.0) / 2)


def test_in_how_many_ways_an_answer_is_wrong_does_not_matter() -> None:
    wanted = ["a", "a", "b", "b", "b"]
    score = scorer("macro-f1").scores
    alike, varied = (score(["a", "a", "b", *wrong], wanted) for wrong in (["x", "x"], ["x", "y"]))
    assert alike.tolist() == varied.tolist()
    assert alike.mean() == pytest.approx((1 + 2 * 1 * (1 / 3) / (1 + 1 / 3) + 0) / 3)


def test_nothing_right_scores_nothing() -> None:
    assert scorer("macro-f1").scores(["a", "b"], ["b", "a"]).tolist() == [0.0, 0.0]


def test_its_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(5)
    truth = by_label(*drawn(generator, 400_000, 0.8))
    inside = 0
    for _ in range(60):
        scores = scorer("macro-f1").scores(*drawn(generator, 400, 0.8))
        found = mean_interval(scores, range(400))
        inside += found.low <= truth <= found.high
    assert inside >= 50  # of 60 at 95 %: fewer by chance once in 2,000


def test_a_lower_limit_beside_the_teacher_is_seldom_too_high() -> None:
    generator = np.random.default_rng(6)

    def both(n: int) -> tuple[list[str], list[str], list[str]]:
        said, wanted = drawn(generator, n, 0.9)
        worse = np.where(generator.random(n) < 0.9, said, generator.choice(LABELS, n))
        return worse.tolist(), said, wanted

    student, teacher, wanted = both(400_000)
    truth = by_label(student, wanted) / by_label(teacher, wanted)
    above = 0
    for _ in range(60):
        student, teacher, wanted = both(400)
        score = scorer("macro-f1").scores
        limit = paired_ratio(score(student, wanted), score(teacher, wanted), range(400)).low
        above += limit > truth
    assert above <= 9  # of 60 at 5 %: more by chance once in 2,000
