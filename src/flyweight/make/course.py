"""The courses that a job may take, and all the stages of each.

How many shapes are trained to their end, and at how many widths each is measured, is known only
afterwards, and it decides most of the cost. So past courses of this machine's jobs are kept; those
of jobs like the new one tell what to expect, beside a few guesses that stand for what was never
seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from flyweight.make.effort import MOST_DOUBLINGS, Effort
from flyweight.make.rates import TRAINING, Work
from flyweight.make.workload import (
    CALIBRATION,
    RANKING,
    Sizes,
    measure_work,
    mend_work,
    pack_work,
    quantise_work,
    ranking_work,
    read_work,
    teacher_work,
    train_work,
    trim_work,
)

WIDTHS = 3  # at which a student is measured, from many bits to few; one more is rarely of use
USUAL_DOUBLINGS = 2  # of the steps from scratch, until a plateau is found
GUESSED = 0.5  # what the guesses weigh in all; a past job just like the new one weighs 1


@dataclass(frozen=True)
class Course:
    """What became of a job's contenders, from small to big.

    `trained`: the share of its steps that each was trained; `widths`: at how many bit widths it was
    measured; `chosen`: the place of the one that was tried on test; `scratch`: the trainings from
    scratch, their steps over those of a distillation.
    """

    trained: tuple[float, ...]
    widths: tuple[int, ...]
    chosen: int
    scratch: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        shares = all(0 <= share <= 1 for share in self.trained)
        if not (shares and len(self.trained) == len(self.widths) > self.chosen >= 0):
            raise ValueError(f"no course of a job: {self}")

    @property
    def finished(self) -> list[int]:
        """Places of those that were trained to the end."""
        return [place for place, share in enumerate(self.trained) if share == 1]


@dataclass(frozen=True)
class PastCourse:
    """The course of a past job, and what was asked of it."""

    score: str
    bar: float
    steps: int
    course: Course

    def likeness(self, sizes: Sizes) -> float:
        """How much a new job is like this one, 0 to 1: their bars, steps and scores.

        Where everything had to be trained to the end, a job that asks more (a higher bar in fewer
        steps) is as like as one that asks the same; so is an easier one where the smallest passed.
        """
        if len(self.course.trained) != len(sizes.levels):  # another effort
            return 0.0
        bar, steps = (sizes.bar - self.bar) / 0.1, math.log(self.steps / sizes.steps)
        harder = max(bar, 0.0) + max(steps, 0.0)
        easier = max(-bar, 0.0) + max(-steps, 0.0)
        if len(self.course.finished) == len(self.course.trained):
            harder = 0.0
        elif self.course.finished == [0]:
            easier = 0.0
        return math.exp(-harder - easier - (1.0 if self.score != sizes.score else 0.0))

    @staticmethod
    def from_dict(told: dict[str, Any]) -> PastCourse:
        """The opposite of `asdict`. Raises ValueError, TypeError or KeyError for anything else."""
        found = told["course"]
        course = Course(
            tuple(found["trained"]),
            tuple(found["widths"]),
            found["chosen"],
            tuple(map(float, found.get("scratch", (1.0,)))),
        )
        return PastCourse(str(told["score"]), float(told["bar"]), int(told["steps"]), course)


def likely_courses(
    sizes: Sizes, effort: Effort, past: Sequence[PastCourse]
) -> list[tuple[float, Course]]:
    """The courses that the job may take, with their chances (they sum to 1)."""
    guesses = guessed_courses(sizes, effort)
    found = [(GUESSED / len(guesses), guess) for guess in guesses]
    found += [(each.likeness(sizes), each.course) for each in past]
    total = sum(weight for weight, _ in found)
    return [(weight / total, course) for weight, course in found if weight > 0]


def guessed_courses(sizes: Sizes, effort: Effort) -> list[Course]:
    """The smallest shape is finished alone, or one, two or three spread over the sizes.

    The biggest that is finished passes.
    """
    count, halved, most = len(sizes.levels), _halved(len(sizes.levels), effort), WIDTHS
    finishing = [{0}]
    for finished in range(1, min(3, count) + 1):
        spread = (math.ceil(count * (i + 0.5) / finished) - 1 for i in range(finished))
        finishing.append(set(spread))
    courses = []
    for places in finishing:
        trained = tuple(1.0 if i in places else share for i, share in enumerate(halved))
        last = max(places)
        failing = 1 if sizes.forced else most
        widths = tuple(most if i == last else failing if i in places else 0 for i in range(count))
        courses.append(Course(trained, widths, last, scratch_lengths(effort, USUAL_DOUBLINGS)))
    return courses


def shortest_course(sizes: Sizes, effort: Effort) -> Course:
    """The smallest shape is the first to be trained to its end, and passes."""
    return guessed_courses(sizes, effort)[0]


def longest_course(sizes: Sizes, effort: Effort) -> Course:
    """Every shape trained to its end and measured at every width, the rival as long as may be."""
    count, widths = len(sizes.levels), WIDTHS + (not sizes.classifies)
    scratch = scratch_lengths(effort, MOST_DOUBLINGS)
    return Course((1.0,) * count, (widths,) * count, count - 1, scratch)


def scratch_lengths(effort: Effort, doublings: int) -> tuple[float, ...]:
    """The trainings from scratch that an effort asks for, if so many doublings find the plateau."""
    lengths = [2.0**doubling for doubling in range(doublings * effort.scratch_plateau + 1)]
    return tuple(lengths * len(effort.scratch_rates))


def _halved(count: int, effort: Effort) -> list[float]:
    """The share of its steps that each contender gets when those in the middle stay."""
    trained, start, stay = [0.0] * count, 0, count
    for rung in effort.rungs:
        trained[start : start + stay] = [rung] * stay
        keep = math.ceil(stay / 2)
        start, stay = start + (stay - keep) // 2, keep
    return trained


def works_of(course: Course, sizes: Sizes, effort: Effort) -> list[Work]:
    """Every stage of a job that takes this course."""
    dev, test, train = (sizes.items[name] for name in ("dev", "test", "train"))
    big, chosen = sizes.teacher, sizes.levels[course.chosen]
    works = [
        *_teacher_works(big, sizes),
        measure_work("measure", dev, sizes, big),
        read_work("score", min(CALIBRATION, train), sizes.base, sizes),
        read_work("record", min(RANKING, dev), sizes.base, sizes),
        read_work("record", train, sizes.base, sizes),
    ]
    if sizes.trimmed:
        works += [trim_work(sizes), *_teacher_works(sizes.trimmed, sizes)]
    if sizes.unanswered:
        works.append(measure_work("answers", sizes.unanswered, sizes, big))
    for shapes, level in zip(sizes.shapes, effort.levels, strict=False):
        works.append(ranking_work(shapes, level, sizes))
    for parameters, share in zip(sizes.levels, course.trained, strict=True):
        if share and effort.mend:
            works.append(mend_work(parameters, sizes))
        works += _trainings(parameters, share, sizes, effort)
    for parameters, widths in zip(sizes.levels, course.widths, strict=True):
        works += _student_works(parameters, widths, sizes)
    works += _scratch_works(chosen, course.scratch, sizes)
    return works + [measure_work("test", test, sizes, each) for each in (chosen, big)]


def trained_tokens(works: Sequence[Work]) -> float:
    """Tokens of all trainings, the rival's among them."""
    return sum(work.tokens for work in works if work.kind in TRAINING)


def _teacher_works(parameters: int, sizes: Sizes) -> list[Work]:
    """A teacher packed, and measured at two lower widths."""
    measured = measure_work("measure", sizes.items["dev"], sizes, parameters)
    quantised = [] if sizes.classifies else [quantise_work(parameters, sizes)]
    return [teacher_work(parameters, sizes), *quantised, measured, measured]


def _trainings(parameters: int, share: float, sizes: Sizes, effort: Effort) -> list[Work]:
    """A contender's training, broken off at every rung on the way."""
    stops = sorted({0.0, share, *(rung for rung in effort.rungs if rung < share)})
    parts = [(end - begin) * sizes.steps for begin, end in pairwise(stops)]
    return [train_work("distil", steps, parameters, sizes) for steps in parts]


def _student_works(parameters: int, widths: int, sizes: Sizes) -> list[Work]:
    """A finished student packed and measured; torch checks its lower widths where it can tell."""
    if not widths:
        return []
    dev = sizes.items["dev"]
    checks = WIDTHS - 1 if sizes.forced else 0
    return [
        pack_work("pack", parameters, sizes),
        *[measure_work("measure", dev, sizes, parameters)] * widths,
        *[read_work("check", dev, parameters, sizes)] * checks,
    ]


def _scratch_works(parameters: int, lengths: Sequence[float], sizes: Sizes) -> list[Work]:
    """The rival from scratch: trained (again and again for a plateau), packed and measured."""
    return [
        *[train_work("scratch", each * sizes.steps, parameters, sizes) for each in lengths],
        pack_work("rival", parameters, sizes),
        measure_work("measure", sizes.items["dev"], sizes, parameters),
    ]
