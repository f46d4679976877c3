"""The verdict: the chosen model, tried once on test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flyweight.card import Answer, ItemScores, Score, SliceScore, TaskScore
from flyweight.make.bench import Result
from flyweight.make.data import Split
from flyweight.make.job import Job
from flyweight.make.openings import count_opening
from flyweight.make.report import SHOWN, order_answers
from flyweight.make.students import Candidate, compare, ratios
from flyweight.tasks.items import Item, content_sha256
from flyweight.tasks.statistics import Interval, mean_interval
from flyweight.tasks.verdict import Verdict, confidence_of_opening, judge, slice_regressions


@dataclass(frozen=True)
class Trial:
    """What test said of the chosen candidate; `opening` counts the times test was opened."""

    verdict: Verdict
    opening: int
    teacher: Result
    student: Result


def try_on_test(job: Job, chosen: Candidate) -> Trial:
    """Open test for the chosen candidate: its answers beside the teacher's, and the verdict."""
    options, lower = job.options, job.scorer.lower_is_better
    question = f"{options.score} {'score' if options.absolute else 'ratio'} {options.bar}"
    opening = count_opening(job.task.test_sha256, job.hash(chosen.file), question)
    weights = job.form.rounded(chosen.checkpoint, chosen.file)
    student = job.measured(
        "test", "student on test", chosen.file, "test", chosen.parameters, weights
    )
    teacher = job.measured_teacher("test", "test")
    confidence = confidence_of_opening(opening)
    ratio = compare(student.scores, teacher.scores, job.data.test, options, lower, confidence)
    return Trial(judge(ratio, options.bar), opening, teacher, student)


def task_scores(job: Job, trial: Trial) -> list[TaskScore]:
    """Every task on test by itself; empty where there is but one."""
    test, options = job.data.test, job.options
    parts, found = test.by_task, []
    if len(parts) < 2:
        return []
    student, teacher = trial.student.scores, trial.teacher.scores
    lower, confidence = job.scorer.lower_is_better, trial.verdict.confidence
    for ratio in ratios(student, teacher, test, options, lower, confidence):
        places = parts[ratio.binds]
        found.append(
            TaskScore(
                name=ratio.binds,
                word=judge(ratio, options.bar).word,
                n=ratio.n,
                groups=ratio.groups,
                teacher=_mean(teacher, places, test, lower),
                student=_mean(student, places, test, lower),
                ratio=ratio.estimate,
                low=ratio.low,
                high=ratio.high,
                binds=ratio.binds == trial.verdict.binds,
            )
        )
    return found


def _mean(scores: np.ndarray, places: list[int], split: Split, lower: bool) -> float:
    """The score of some items: of likelihood all their bits over all their bytes."""
    weights = split.byte_shares[places] if lower else None
    total = len(places) if weights is None else weights.sum()
    return float(scores[places].sum() / total)


def test_scores(job: Job, trial: Trial) -> ItemScores:
    """What every test item scored, for `scores.json`."""
    test = job.data.test
    return ItemScores(
        test_sha256=job.task.test_sha256,
        score=job.options.score,
        lower_is_better=job.scorer.lower_is_better,
        items=[content_sha256([item]) for item in test.items],
        groups=test.groups,
        teacher=trial.teacher.scores.tolist(),
        student=trial.student.scores.tolist(),
    )


def score_card(scores: np.ndarray, split: Split) -> Score:
    """A mean score with its interval, for the card."""
    interval: Interval = mean_interval(scores, split.groups)
    return Score(**vars(interval))


def slice_scores(trial: Trial, test: Split, lower_is_better: bool, bar: float) -> list[SliceScore]:
    """Every slice of test, with Holm's correction; nothing where no item names a slice.

    For likelihood (`lower_is_better`) a slice's score is its own bits over its own bytes.
    """
    if not any(item.slices for item in test.items):
        return []
    student, teacher = trial.student.scores, trial.teacher.scores
    weights = None
    if lower_is_better:
        student, teacher, weights = teacher, student, test.byte_shares
    results = slice_regressions(
        student, teacher, test.groups, [item.slices for item in test.items], bar, weights
    )
    return [
        SliceScore(
            name=part.name,
            n=part.n,
            student=part.teacher if lower_is_better else part.student,
            teacher=part.student if lower_is_better else part.teacher,
            ratio=part.ratio,
            p=part.p,
        )
        for part in results
    ]


def shown_answers(trial: Trial, test: Split) -> list[Answer]:
    """Test answers for a person to read: first what the student lost, then what it won."""
    if not trial.student.answers:
        return []
    told = [
        Answer(
            prompt=_asked(test.items[i]),
            wanted=test.answers[i],
            teacher=trial.teacher.answers[i],
            student=trial.student.answers[i],
            teacher_score=float(trial.teacher.scores[i]),
            student_score=float(trial.student.scores[i]),
        )
        for i in range(len(test))
    ]
    return order_answers(told)[:SHOWN]


def _asked(item: Item) -> str:
    """What was asked last, after the picture's name where it is about one."""
    return item.last_text if item.image is None else f"[{item.image}] {item.last_text}"
