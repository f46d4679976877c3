"""The main job from end to end: read, quote, search, rivals, verdict, handover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from flyweight.card import Card, QuoteCard
from flyweight.checkpoint import open_checkpoint
from flyweight.energy.constants import JOULES_A_KWH, constants
from flyweight.energy.ledger import Ledger, entry
from flyweight.errors import FolderError, OptionError, TaskError, TeacherError, was_interrupted
from flyweight.folder import bytes_in, check_place, check_space, disk_errors
from flyweight.make.challengers import find_rivals
from flyweight.make.course import Course, PastCourse, works_of
from flyweight.make.device import find_device
from flyweight.make.effort import BATCH, EFFORTS, default_steps
from flyweight.make.footprint import (
    LIBRARIES,
    disk,
    mapped_memory,
    memory_warnings,
    passing_disk,
    working_memory,
)
from flyweight.make.form import Form, form_of
from flyweight.make.handover import Outcome, hand_over
from flyweight.make.job import Job
from flyweight.make.judge import try_on_test
from flyweight.make.machine import Machine, find_machine, remember
from flyweight.make.options import Options
from flyweight.make.quote import make_quote, seconds_of, settle
from flyweight.make.quote_energy import ENERGY, as_it_was, foretold, with_energy
from flyweight.make.rates import Work
from flyweight.make.search import search
from flyweight.make.show import show_result
from flyweight.make.store import Store, open_store, work_folder
from flyweight.make.students import Candidate, Found, choose
from flyweight.make.trim import foreseen, vocabulary_of
from flyweight.make.workload import Sizes, effort_of, sizes_of
from flyweight.progress import say
from flyweight.tasks.enough import check_evidence
from flyweight.tasks.items import Task
from flyweight.tasks.leaks import leak_warnings
from flyweight.tasks.read import read_task, unit_of
from flyweight.tasks.score import Scorer, scorer
from flyweight.tasks.several import combine
from flyweight.vision.rows import refuse_leaks

BAD_INPUT = (TaskError, TeacherError, OptionError)  # nothing is kept of a job that had no chance


@dataclass(frozen=True)
class Plan:
    """A job that has been read and quoted, and not begun."""

    options: Options
    teacher: Form
    task: Task
    scorer: Scorer
    sizes: Sizes
    machine: Machine
    quote: QuoteCard
    warnings: Sequence[str] = field(default=())


def prepare_job(options: Options, machine: str) -> Plan:
    """Read everything and quote; writes nothing. Raises FlyweightError for bad input."""
    scoring = scorer(options.score)
    check_place(options.out, options.teacher)
    teacher = open_checkpoint(options.teacher, pictures=True)
    teacher.check_declared()
    form = form_of(teacher)
    form.check(scoring)
    if options.device != "this":
        find_device(options.device, teacher.family.causal)  # refused now, not after hours
    pictures = teacher.family.pictures
    if pictures and options.on_device:
        raise OptionError(
            "--by, --device and budgets of latency, memory and speed go by forecasts of models of "
            "texts alone. Leave them out."
        )
    tasks = [read_task(path, pictures=pictures) for path in options.tasks]
    if pictures:
        refuse_leaks(list(zip(options.tasks, tasks, strict=True)))
    task = combine(tasks)
    effort = EFFORTS[options.effort]
    steps = options.steps or default_steps(len(task.train), effort)
    vocabulary = vocabulary_of(form, task.train, task.name, scoring)
    base = teacher if vocabulary is None else foreseen(teacher, vocabulary)
    sizes = sizes_of(task, form, base, options, steps, scoring)
    known = find_machine(machine)
    within = effort_of(options, form, base)
    quote = with_energy(make_quote(sizes, within, known), known, options.country)
    warnings = []
    if machine == "this":  # what is mapped gives way
        warnings += memory_warnings(quote.memory - mapped_memory(sizes))
    for path, each in zip(options.tasks, tasks, strict=True):
        warnings += check_evidence(each, options.bar, scoring, chosen=form.chooses)
        warnings += leak_warnings(each.train, each.test, path.name, unit_of(path))
    return Plan(options, form, task, scoring, sizes, known, quote, warnings)


def run_job(plan: Plan) -> Card:
    """Do what was quoted, or go on with it; writes the model folder and returns its card."""
    out = plan.options.out
    there = bytes_in(work_folder(out))
    if (missing := plan.quote.disk - there) > 0:  # else all is known, and it is handed over again
        check_space(out, missing + round(passing_disk(plan.sizes)))
    with disk_errors(out):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with open_store(out) as store:
        threads = int(store.fixed("threads", torch.get_num_threads()))
        options = replace(plan.options, threads=threads)
        store.journal.start(vars(options), plan.quote.model_dump())
        try:
            card = _run(replace(plan, options=options), store)
        except BaseException as error:
            stopped = was_interrupted(error)
            asked = "answers" in store.seconds  # may have taken hours: kept for another score
            new = store.is_new and not asked and not stopped
            if isinstance(error, BAD_INPUT) and new:
                store.discard()
                raise
            store.journal.write("interrupted" if stopped else "failed", error=str(error))
            if stopped:
                say(f"Stopped. What was done is kept; the same command goes on from {store.root}.")
            _remember(store)  # what an interrupted run took is known as well
            _enter(store, out.name)
            raise
        _enter(store, out.name)
        verdict = card.verdict
        store.journal.write("handed over", verdict=verdict.word, sentence=verdict.sentence)
    show_result(card, out)
    return card


def _remember(store: Store, course: PastCourse | None = None) -> None:
    """Keep what was taken, for the next quote; a job does not fail by that."""
    try:
        remember(store.fresh, course)
    except FolderError as error:
        say(f"The next quote will not know of this job: {error}")


def _run(plan: Plan, store: Store) -> Card:
    job = Job(plan.options, plan.teacher, plan.task, plan.scorer, plan.sizes, store)
    if plan.sizes.unanswered:  # what the teacher answers holds tokens that nobody could foresee
        steps = plan.sizes.steps
        sizes = sizes_of(plan.task, plan.teacher, job.base, plan.options, steps, plan.scorer)
        plan = replace(plan, sizes=sizes)
        job.sizes = sizes
    found = search(job)
    chosen = choose(found.candidates, job.options)
    rivals = find_rivals(job, chosen)
    trial = try_on_test(job, chosen)
    job.count_all()
    tokens = round(sum(job.steps_taken.values()) * BATCH * plan.sizes.tokens)
    taken = {folder.name: step / job.steps for folder, step in job.steps_taken.items()}
    scratch = [share for name, share in taken.items() if name.startswith("scratch-")]
    course = course_of(found, chosen, len(plan.sizes.levels), scratch)
    foreseen = seconds_of(works_of(course, plan.sizes, job.effort), plan.machine.rates())
    as_it_went = foreseen * plan.machine.factor("time")
    quote = settle(plan.quote, as_it_went, store.seconds, tokens, store.root)
    if store.is_metered_whole:
        taken = store.energy.meter.boundaries(store.energy.whole).facility
        quote = as_it_was(quote, taken, plan.options.country)
    else:
        say("What earlier runs of this job took in energy is not known, and so not the sum.")
    card = hand_over(job, Outcome(found, chosen, rivals, trial, quote))
    _remember_all(plan, store, quote, course, foreseen)
    return card


def _enter(store: Store, name: str) -> None:
    """A line in the ledger of what this run took, and one that was killed; none fails by that."""
    taken, running = store.energy.unentered, store.energy.meter
    try:
        with Ledger() as ledger:
            joules = running.boundaries(taken)
            ledger.add(entry("make", name, joules, constants().version, seconds=taken.on / 1e9))
        store.energy.enter(taken)
    except FolderError as error:
        say(f"What this took is not in the ledger: {error}")


def _remember_all(
    plan: Plan, store: Store, quote: QuoteCard, course: Course, foreseen: float
) -> None:
    """Keep how a whole job went; one that was taken up says nothing of the memory of others.

    `foreseen`: the seconds of its course by the rates of its stages alone.
    """
    sizes = plan.sizes
    if store.fresh and store.is_first_run:
        store.fresh += [
            (Work("memory", working_memory(sizes), 0.0), (quote.actual_memory or 0.0) - LIBRARIES),
            (Work("disk", disk(sizes, course), 0.0), float(quote.actual_disk or 0)),
            *_energy(quote, plan.machine),
        ]
        if plan.machine.jobs:  # a first job's rates were assumed; its stages correct them
            store.fresh.append((Work("time", foreseen, 0.0), quote.actual_seconds or 0.0))
    _remember(store, PastCourse(sizes.score, sizes.bar, sizes.steps, course))


def _energy(quote: QuoteCard, machine: Machine) -> list[tuple[Work, float]]:
    """What was foretold for the seconds that it took, beside what was metered, in joules."""
    seconds, taken = quote.actual_seconds, quote.actual_energy
    if not seconds or taken is None or not taken.value:
        return []
    joules = foretold(seconds, machine.name).value or 0.0
    return [(Work(ENERGY, joules, 0.0), taken.value * JOULES_A_KWH)]


def course_of(found: Found, chosen: Candidate, foreseen: int, scratch: Sequence[float]) -> Course:
    """What became of the contenders of a search, of which so many were `foreseen`.

    Those that a budget leaves out, the biggest as a rule, are not trained at all.
    """
    left_out = foreseen - len(found.contenders)
    return Course(
        trained=(
            *(min(1.0, each.step / each.full_steps) for each in found.contenders),
            *[0.0] * left_out,
        ),
        widths=(*(len(each.candidates) for each in found.contenders), *[0] * left_out),
        chosen=next(
            place for place, each in enumerate(found.contenders) if chosen in each.candidates
        ),
        scratch=tuple(scratch),
    )
