"""The verdict: the chosen model, tried once on test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flyweight.card import Answer, Score, SliceScore
from flyweight.folder import sha256_of
from flyweight.make.bench import Result
from flyweight.make.data import Split
from flyweight.make.job import Job
from flyweight.make.ledger import count_opening
from flyweight.make.students import Candidate, Found, compare
from flyweight.tasks.statistics import Interval, mean_interval
from flyweight.tasks.verdict import Verdict, confidence_of_opening, judge, slice_regressions

SHOWN_ANSWERS = 10


@dataclass(frozen=True)
class Trial:
    """What test said of the chosen candidate; `opening` counts the times test was opened."""

    verdict: Verdict
    opening: int
    teacher: Result
    student: Result


def try_on_test(job: Job, found: Found, chosen: Candidate) -> Trial:
    """Open test for the chosen candidate: its answers beside the teacher's, and the verdict."""
    test, lower = found.data.test, job.scorer.lower_is_better
    options = job.options
    question = f"{options.score} {'score' if options.absolute else 'ratio'} {options.bar}"
    opening = count_opening(job.task.test_sha256, sha256_of(chosen.gguf), question)
    student = found.bench.run("student on test", chosen.gguf, test, job.rounded(chosen))
    teacher = found.bench.run("teacher on test", found.teacher_gguf, test, job.model)
    ratio = compare(
        student.scores, teacher.scores, test, options, lower, confidence_of_opening(opening)
    )
    return Trial(judge(ratio, options.bar), opening, teacher, student)


def score_card(scores: np.ndarray, split: Split) -> Score:
    """A mean score with its interval, for the card."""
    interval: Interval = mean_interval(scores, split.groups)
    return Score(**vars(interval))


def slice_scores(trial: Trial, test: Split, lower_is_better: bool, bar: float) -> list[SliceScore]:
    """Every slice of test, with Holm's correction; nothing where no item names a slice."""
    if not any(item.slices for item in test.items):
        return []
    student, teacher = trial.student.scores, trial.teacher.scores
    if lower_is_better:
        student, teacher = teacher, student
    results = slice_regressions(
        student, teacher, test.groups, [item.slices for item in test.items], bar
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


def shown_answers(trial: Trial, test: Split, count: int = SHOWN_ANSWERS) -> list[Answer]:
    """Test answers for a person to read: those where student and teacher differ come first."""
    if not trial.student.answers:
        return []
    order = sorted(
        range(len(test)), key=lambda i: trial.student.answers[i] == trial.teacher.answers[i]
    )
    return [
        Answer(
            prompt=_last_words(test.items[i].messages),
            wanted=test.answers[i],
            teacher=trial.teacher.answers[i],
            student=trial.student.answers[i],
            teacher_score=float(trial.teacher.scores[i]),
            student_score=float(trial.student.scores[i]),
        )
        for i in order[:count]
    ]


def _last_words(messages: Sequence[dict]) -> str:
    return str(messages[-1]["content"])
