"""The main job from end to end: read, quote, search, rivals, verdict, handover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from flyweight.card import Card, QuoteCard
from flyweight.checkpoint import Checkpoint, open_checkpoint
from flyweight.errors import FolderError, OptionError, TaskError, TeacherError
from flyweight.folder import bytes_in, check_place, check_space, disk_errors
from flyweight.make.challengers import find_rivals
from flyweight.make.effort import BATCH, EFFORTS, default_steps
from flyweight.make.handover import Outcome, hand_over
from flyweight.make.job import Job
from flyweight.make.judge import try_on_test
from flyweight.make.options import Options
from flyweight.make.quote import Sizes, disk, make_quote, memory, settle, sizes_of
from flyweight.make.rates import SIZES, Work, find_machine, remember
from flyweight.make.search import search
from flyweight.make.show import show_result
from flyweight.make.store import Store, open_store, work_folder
from flyweight.make.students import choose
from flyweight.progress import say
from flyweight.tasks.enough import check_evidence
from flyweight.tasks.items import Task
from flyweight.tasks.read import read_task
from flyweight.tasks.score import Scorer, scorer

BAD_INPUT = (TaskError, TeacherError, OptionError)  # nothing is kept of a job that had no chance


@dataclass(frozen=True)
class Plan:
    """A job that has been read and quoted, and not begun."""

    options: Options
    teacher: Checkpoint
    task: Task
    scorer: Scorer
    sizes: Sizes
    quote: QuoteCard
    warnings: Sequence[str] = field(default=())


def prepare_job(options: Options, machine: str) -> Plan:
    """Read everything and quote; writes nothing. Raises FlyweightError for bad input."""
    scoring = scorer(options.score)
    check_place(options.out)
    teacher = open_checkpoint(options.teacher)
    teacher.check_declared()
    teacher.gguf_map.metadata(teacher.config)  # refused now, not after hours
    task = read_task(options.task)
    effort = EFFORTS[options.effort]
    steps = options.steps or default_steps(len(task.train), effort)
    sizes = sizes_of(task, teacher, teacher.tokenizer(), effort, steps, scoring.needs_generation)
    quote = make_quote(sizes, effort, find_machine(machine))
    warnings = check_evidence(task, options.bar, scoring)
    return Plan(options, teacher, task, scoring, sizes, quote, warnings)


def run_job(plan: Plan) -> Card:
    """Do what was quoted, or go on with it; writes the model folder and returns its card."""
    out = plan.options.out
    check_space(out, plan.quote.disk - bytes_in(work_folder(out)))
    with disk_errors(out):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with open_store(out) as store:
        threads = int(store.fixed("threads", torch.get_num_threads()))
        options = replace(plan.options, threads=threads)
        store.journal.start(vars(options), plan.quote.model_dump())
        try:
            card = _run(replace(plan, options=options), store)
        except BAD_INPUT as error:
            if store.is_new:
                store.discard()
            else:
                store.journal.write("failed", error=str(error))
            raise
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            store.journal.write("interrupted" if stopped else "failed", error=str(error))
            if stopped:
                say(f"Stopped. What was done is kept; the same command goes on from {store.root}.")
            _remember(store)  # what an interrupted run took is known as well
            raise
        verdict = card.verdict
        store.journal.write("handed over", verdict=verdict.word, sentence=verdict.sentence)
        _remember(store)
    show_result(card, out)
    return card


def _remember(store: Store) -> None:
    """Keep what the stages took, for the next quote; a job does not fail by that."""
    try:
        remember(store.fresh)
    except FolderError as error:
        say(f"The next quote will not know of this job: {error}")


def _run(plan: Plan, store: Store) -> Card:
    job = Job(plan.options, plan.teacher, plan.task, plan.scorer, plan.sizes, store)
    found = search(job)
    chosen = choose(found.candidates, job.options)
    rivals = find_rivals(job, chosen)
    trial = try_on_test(job, chosen)
    job.count_all()
    tokens = round(sum(job.steps_taken.values()) * BATCH * plan.sizes.tokens)
    quote = settle(plan.quote, store.seconds, tokens, store.root)
    if store.fresh:  # what a job that only looks things up needs says nothing of others
        foretold = {"memory": memory(plan.sizes), "disk": disk(plan.sizes)}
        taken = {"memory": quote.actual_memory or 0, "disk": quote.actual_disk or 0}
        store.fresh += [(Work(kind, foretold[kind], 0.0), taken[kind]) for kind in SIZES]
    return hand_over(job, Outcome(found, chosen, rivals, trial, quote))
