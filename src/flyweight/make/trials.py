"""One student's way: cut or drawn at random, trained, exported, and measured on dev."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_model, save_model

from flyweight.anatomy import Shape
from flyweight.distill.losses import Objective
from flyweight.distill.objectives import KL
from flyweight.distill.resume import Trained, newest_checkpoint
from flyweight.distill.trainer import Probe, Schedule, train
from flyweight.distill.wish import FORMAT
from flyweight.errors import ParityError
from flyweight.folder import WEIGHTS
from flyweight.make.effort import BATCH
from flyweight.make.fitted import FITTING
from flyweight.make.form import Form
from flyweight.make.job import Job
from flyweight.make.probe import probe_steps
from flyweight.make.results import read_json, write_json
from flyweight.make.students import Candidate, Contender, of_use
from flyweight.make.workload import MENDED, mend_work, pack_work, read_work, train_work
from flyweight.progress import say
from flyweight.runtime.forced import greedy_matches
from flyweight.shrink.cut import cut_model
from flyweight.shrink.keep import Keep
from flyweight.shrink.mend import mend

MENDING_FORMAT = 1  # a stage of another one is worked out anew


@dataclass(frozen=True)
class Lesson:
    """A training that can be broken off and taken up: `inputs` are what its weights depend on."""

    kind: str  # of its stage
    label: str
    parameters: int
    inputs: dict[str, Any]
    objective: Callable[[], Objective]  # made when it is needed
    schedule: Schedule
    start: Callable[[], Any]  # the model before the first step


def learn(job: Job, lesson: Lesson, step: int, model: Any = None) -> Trained:
    """The course of a lesson up to `step`, trained where it was not yet.

    Without a `model` to take the weights nothing is loaded that is not needed.
    """
    folder = job.store.grown(lesson.kind, lesson.inputs, lesson.label)
    done = newest_checkpoint(folder)
    if model is None and done is not None and done.step >= step:
        trained = done.trained().until(step)
        job.steps_taken[folder] = trained.step
        job.store.journal.found(lesson.kind, folder.name)
        job.store.spent(lesson.kind, folder, trained.seconds)
        return trained
    before = (done.step, done.seconds) if done is not None else (0, 0.0)
    job.store.journal.began(lesson.kind, folder.name)
    trained = train(
        model or lesson.start(),
        job.train_rows,
        lesson.objective(),
        lesson.schedule,
        f"{'Distilling' if lesson.kind == 'distil' else 'From scratch:'} {lesson.label}",
        keep=folder,
        until=step,
        probe=Probe(probe_steps(lesson.schedule.steps), job.read_share),
    )
    job.steps_taken[folder] = trained.step
    fresh = max(0, trained.step - before[0])
    job.store.spent(
        lesson.kind,
        folder,
        trained.seconds,
        work=train_work(lesson.kind, fresh, lesson.parameters, job.sizes) if fresh else None,
        now=trained.seconds - before[1],
    )
    job.store.journal.ended(lesson.kind, folder.name, trained.seconds)
    return trained


def exported(job: Job, lesson: Lesson, kind: str) -> Path:
    """The checkpoint at the end of a lesson with its files, proven, as a stage of this kind.

    Raises ParityError where no export answers as the checkpoint does.
    """

    def make(folder: Path) -> None:
        model = lesson.start()
        learn(job, lesson, lesson.schedule.steps, model)
        job.form.save(model, folder)
        job.pack(folder, lesson.label)

    work = pack_work(kind, lesson.parameters, job.sizes)
    inputs = lesson.inputs | FITTING
    return job.store.stage(kind, inputs, make, lesson.label, work=work)


def distillation(job: Job, contender: Contender) -> Lesson:
    """A contender's lesson: what the teacher says, and the answers."""
    schedule = Schedule(
        steps=contender.full_steps,
        batch_size=BATCH,
        learning_rate=job.form.learning_rate(contender.ranked.shape.hidden),
        seed=job.options.seed,
    )
    told = {
        "shape": contender.ranked.shape.as_dict(),
        "kl": KL,
        "schedule": asdict(schedule),
        "record": FORMAT,
    }
    if job.effort.mend:
        told["mended"] = MENDING_FORMAT
    return Lesson(
        "distil",
        contender.label,
        contender.ranked.parameters,
        job.origin | told,
        lambda: job.form.objective(job, KL),
        schedule,
        lambda: cut(job, contender),
    )


def cut(job: Job, contender: Contender) -> Any:
    """The contender's network as it is cut, and mended if the effort asks for it."""
    keep = job.importance.keep(job.base.shape, contender.ranked.shape)
    student = cut_model(job.model, job.base.family, keep)
    if job.effort.mend:
        load_model(student, mended(job, contender, keep) / WEIGHTS)
    return student


def mended(job: Job, contender: Contender, keep: Keep) -> Path:
    """The stage that holds a contender's weights, fitted to say what the teacher's say."""

    def make(folder: Path) -> None:
        student = cut_model(job.model, job.base.family, keep)
        prompts, feed = job.form.prompts(job, MENDED), job.form.feed(job)
        mend(student, job.model, job.base.family, keep, prompts, feed=feed)
        save_model(student, str(folder / WEIGHTS))

    inputs = job.origin | {
        "shape": contender.ranked.shape.as_dict(), "items": MENDED, "format": MENDING_FORMAT,
    }  # fmt: skip
    work = mend_work(contender.ranked.parameters, job.sizes)
    return job.store.stage("mend", inputs, make, contender.label, work=work)


def measure_contender(job: Job, contender: Contender) -> None:
    """Export a finished contender and measure it at every bit width but the hopeless ones."""
    ranked = contender.ranked
    try:
        folder = exported(job, distillation(job, contender), "pack")
    except ParityError as error:
        contender.excluded = str(error)
        say(f"{contender.label} is not exported: {error}")
        return
    most = job.options.budgets.bytes or math.inf
    sizes = {bits: (folder / name).stat().st_size for bits, name in job.form.files.items()}
    widths = [bits for bits, size in sizes.items() if size <= most]
    if not widths:
        contender.excluded = f"its smallest file has {min(sizes.values()):,} bytes"
        say(f"{contender.label} does not fit the budget: {contender.excluded}")
        return
    contender.candidates = measure_widths(
        job, folder, ranked.shape, ranked.parameters, contender.label, widths
    )
    for each in contender.candidates:
        if why := job.options.budgets.exceeded(each.figures):
            say(f"{each.name} is beyond a budget: {why}")


def measure_widths(
    job: Job,
    folder: Path,
    shape: Shape,
    parameters: int,
    label: str,
    widths: Sequence[int],
    form: Form | None = None,
    files: Path | None = None,
    **facts: Any,
) -> list[Candidate]:
    """A packed checkpoint measured on dev at `widths` bits, from many to few, then the spare ones.

    Once one is measured, a width that torch shows to fall short is not measured further. `form` is
    that of students where it is not given, `files` where the files lie if not in `folder`.
    """
    form, files = form or job.form, files or folder
    forecasts = job.forecasts(shape)
    elsewhere = job.options.device != "this"
    measured: list[Candidate] = []
    for bits in sorted(widths, key=lambda bits: (bits in form.spare, -bits)):
        if bits in form.spare and not of_use(bits, measured, job.options):
            continue
        file = files / form.files[bits]
        weights = form.rounded(folder, file)
        if measured and _falls_short(job, form, file, weights, parameters):
            say(f"{label} at {bits} bits falls short on dev: not measured further")
            continue
        title = f"{label}, {bits} bits"
        result = job.measured("measure", title, file, "dev", parameters, weights, form=form)
        ratio = job.ratio(result.scores)
        measured.append(
            Candidate(
                shape,
                parameters,
                bits,
                file,
                folder,
                result,
                ratio,
                forecast=forecasts.get(bits),
                elsewhere=elsewhere,
                **facts,
            )
        )
    return measured


def _falls_short(
    job: Job, form: Form, file: Path, weights: Callable[[], Any] | None, parameters: int
) -> bool:
    """Whether a file's weights, if torch can judge them, are sure to miss the bar on dev."""
    if weights is None or not job.scorer.teacher_forced:
        return False
    pairs = job.data_of(form).dev.pairs

    def make(place: Path) -> None:
        right = greedy_matches(weights(), pairs, title=f"Checking {file.name}")
        write_json(place / "right.json", right.astype(float).tolist())

    inputs = job.origin | {"file": job.hash(file)}
    work = read_work("check", len(job.data.dev), parameters, job.sizes)
    right = read_json(job.store.stage("check", inputs, make, work=work) / "right.json")
    return job.ratio(np.array(right)).high < job.options.bar
