"""What a search has to beat: the teacher only quantised, and the same shape from scratch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from flyweight.distill.trainer import Schedule
from flyweight.errors import ParityError
from flyweight.make.effort import BATCH, MOST_DOUBLINGS
from flyweight.make.form import Form
from flyweight.make.job import Job
from flyweight.make.students import Candidate, passes
from flyweight.make.trials import Lesson, exported, learn, measure_widths
from flyweight.progress import say
from flyweight.shrink.cut import cut_config

PLATEAU_GAIN = 0.01  # of what is left to gain: twice the steps that bring less are the plateau


def find_rivals(job: Job, chosen: Candidate) -> list[Candidate]:
    """The rivals of the chosen student, measured on dev as it was."""
    quantised = quantised_teachers(job, job.big)
    if job.form is not job.big:
        try:
            quantised += quantised_teachers(job, job.form, "with the task's tokens alone")
        except ParityError as error:
            say(f"The teacher with the task's tokens alone is not exported: {error}")
    return [*quantised, *from_scratch(job, chosen)]


def quantised_teachers(job: Job, form: Form, note: str = "") -> list[Candidate]:
    """The smallest teacher only quantised that passes; where none does, all that were measured.

    Which is the smallest is known before for bytes alone; else all are measured.
    """
    teacher, options, measured = form.source, job.options, []
    for bits in sorted(form.files)[:-1]:  # the smaller file first
        measured += measure_widths(
            job,
            job.packed(form),
            teacher.shape,
            teacher.parameters,
            f"teacher {note}".strip(),
            (bits,),
            form,
            form.quantised(job),
            role="quantised teacher",
            note=note,
        )
        if options.by == "bytes" and passes(measured[-1], options):
            break
    good = [each for each in measured if passes(each, options)]
    return [min(good, key=lambda each: each.size(options.by))] if good else measured


def from_scratch(job: Job, chosen: Candidate) -> list[Candidate]:
    """The chosen shape at the same bits, drawn at random and taught by the answers alone."""
    lesson, note = _best_lesson(job, chosen)
    learn(job, lesson, lesson.schedule.steps)
    try:
        folder = exported(job, lesson, "rival")
    except ParityError as error:
        say(f"The rival from scratch is not exported: {error}")
        return []
    return measure_widths(
        job,
        folder,
        chosen.shape,
        chosen.parameters,
        "from scratch",
        (chosen.bits,),
        role="from scratch",
        note=note,
    )


def _best_lesson(job: Job, chosen: Candidate) -> tuple[Lesson, str]:
    """The lesson from scratch that ends nearest to the teacher among the rates, and its note."""
    usual = job.form.learning_rate(chosen.shape.hidden)
    rates = [factor * usual for factor in job.effort.scratch_rates]
    if not job.effort.scratch_plateau:
        return _scratch(job, chosen, rates[0], job.steps), "the same tokens"
    courses = [_to_plateau(job, chosen, rate) for rate in rates]
    best, flat = min(
        ((end, flat) for ends, flat in courses for end in ends), key=lambda pair: pair[0].left
    )
    times = best.lesson.schedule.steps / job.steps
    how = "to its plateau" if flat else "not yet at its plateau"
    return best.lesson, f"{how} ({times:g} times the tokens), best of {len(rates)} rates"


@dataclass(frozen=True)
class _End:
    """Where a training from scratch ends: `left` is what dev leaves to be desired then, first in
    score, then in nats of the answers.
    """

    lesson: Lesson
    left: tuple[float, float]

    def gains_on(self, shorter: _End) -> bool:
        """Whether it is better by PLATEAU_GAIN in either: a score may stand still or jump."""
        ours, theirs = self.left, shorter.left
        return any(new < (1 - PLATEAU_GAIN) * old for new, old in zip(ours, theirs, strict=True))


def _to_plateau(job: Job, chosen: Candidate, rate: float) -> tuple[list[_End], bool]:
    """The steps, twice as many, and twice again, until that gains nothing on dev or is too much.

    All that were trained, and whether the last of them gained nothing.
    """
    ends = [_ended(job, _scratch(job, chosen, rate, job.steps))]
    for doubling in range(1, MOST_DOUBLINGS + 1):
        ends.append(_ended(job, _scratch(job, chosen, rate, job.steps * 2**doubling)))
        if not ends[-1].gains_on(ends[-2]):
            return ends, math.isfinite(min(end.left for end in ends)[0])
    return ends, False


def _ended(job: Job, lesson: Lesson) -> _End:
    """A lesson taken to its end, and read there."""
    last = learn(job, lesson, lesson.schedule.steps).readings[-1][1]
    left = (max(0.0, 1 - last["share"]), last["nats"])
    return _End(lesson, left if all(map(math.isfinite, left)) else (math.inf, math.inf))


def _scratch(job: Job, chosen: Candidate, rate: float, steps: int) -> Lesson:
    schedule = Schedule(steps=steps, batch_size=BATCH, learning_rate=rate, seed=job.options.seed)
    told = {"scratch": chosen.shape.as_dict(), "schedule": asdict(schedule), "read": "nats"}
    return Lesson(
        "scratch",
        f"{chosen.parameters / 1e6:.2f}M",
        chosen.parameters,
        job.origin | told,
        lambda: job.form.objective(job, 0.0),
        schedule,
        lambda: untrained(job, chosen),
    )


def untrained(job: Job, chosen: Candidate) -> Any:
    """A network of the chosen shape as its architecture draws it, from the job's seed."""
    keep = job.importance.keep(job.base.shape, chosen.shape)
    config = cut_config(job.base.family, job.base.config, keep)
    with torch.random.fork_rng():
        torch.manual_seed(job.options.seed)
        model = type(job.model)(config).float()
        job.form.begin(model)
    if job.base.family.causal:
        model.generation_config = job.model.generation_config
    return model.eval()
