"""The quote: what a job will take, before it runs; and beside it, afterwards, what it took."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.card import QuoteCard, QuotedStage
from flyweight.checkpoint import Checkpoint
from flyweight.distill.teacher import TOP_K
from flyweight.folder import bytes_in
from flyweight.make.bench import LIKELIHOOD_PROMPTS
from flyweight.make.data import FREE_TOKENS
from flyweight.make.effort import BATCH, MOST_DOUBLINGS, Effort
from flyweight.make.probe import FRACTIONS, SAMPLE
from flyweight.make.rates import Machine, Work
from flyweight.shrink.shapes import Candidate, grid
from flyweight.tasks.encode import answer_ids, prompt_ids
from flyweight.tasks.items import Item, Task

BASE_MEMORY = 700_000_000  # Python, torch, transformers
LOOKED_AT = 200  # items of a split whose length is measured
CALIBRATION = 256  # train items that tell importance
RANKING = 128  # dev items that rank the grid


@dataclass(frozen=True)
class Sizes:
    """How big a job is: items by split, mean tokens of a prompt and an answer, the networks."""

    items: dict[str, int]
    prompt: float
    answer: float
    unanswered: int
    teacher: int
    levels: tuple[int, ...]  # parameters of the contenders, one entry each
    shapes: int  # that are ranked
    vocabulary: int
    steps: int
    generates: bool

    @property
    def tokens(self) -> float:
        """Mean tokens of an item."""
        return self.prompt + self.answer


def sizes_of(
    task: Task, teacher: Checkpoint, tokenizer: Any, effort: Effort, steps: int, generates: bool
) -> Sizes:
    """What the quote needs to know; looks at a few hundred items."""
    looked = [*task.train[:LOOKED_AT], *task.dev[:LOOKED_AT]]
    lengths = np.array([_lengths(tokenizer, item, generates) for item in looked], dtype=float)
    whole = teacher.parameters
    levels: list[int] = []
    for level in effort.levels:
        count = len(_grid(teacher, level, effort))
        levels += [round(level * whole)] * min(effort.width, count)
    parts = task.splits
    return Sizes(
        items={name: len(items) for name, items in parts.items()},
        prompt=float(lengths[:, 0].mean()),
        answer=float(lengths[:, 1].mean()),
        unanswered=sum(item.answer is None for items in parts.values() for item in items)
        if generates
        else 0,
        teacher=whole,
        levels=tuple(levels) or (whole // 4,),
        shapes=sum(len(_grid(teacher, level, effort)) for level in effort.levels),
        vocabulary=teacher.shape.vocabulary,
        steps=steps,
        generates=generates,
    )


def make_quote(sizes: Sizes, effort: Effort, machine: Machine) -> QuoteCard:
    """The likely and the longest course of a job on a machine."""
    likely, longest = course(sizes, effort), course(sizes, effort, longest=True)
    stages: dict[str, float] = {}
    for work in likely:
        stages[work.kind] = stages.get(work.kind, 0.0) + machine.seconds(work)
    return QuoteCard(
        machine=machine.name,
        source="measured" if machine.jobs else "assumed",
        jobs=machine.jobs,
        seconds=sum(stages.values()),
        seconds_high=sum(machine.seconds(work) for work in longest),
        tokens=round(trained_tokens(sizes, effort)),
        memory=round(memory(sizes) * machine.factor("memory")),
        disk=round(disk(sizes) * machine.factor("disk")),
        stages=[QuotedStage(name=name, quoted=seconds) for name, seconds in stages.items()],
    )


def course(sizes: Sizes, effort: Effort, *, longest: bool = False) -> list[Work]:
    """The stages of a job: as halving makes them, or with every shape trained and measured."""
    dev, test, train = (sizes.items[name] for name in ("dev", "test", "train"))
    big = sizes.teacher
    middle = sorted(sizes.levels)[len(sizes.levels) // 2]
    ends = list(sizes.levels) if longest else [middle]
    works = [
        teacher_work(big),
        measure_work("measure", dev, sizes, big),
        Work("score", min(CALIBRATION, train), forward(big, min(CALIBRATION, train), sizes)),
        Work("record", train, forward(big, train + min(RANKING, dev), sizes)),
        _ranking(sizes.shapes, int(np.mean(sizes.levels)), sizes),
    ]
    if sizes.unanswered:
        works.append(measure_work("answers", sizes.unanswered, sizes, big))
    works += [train_work("distil", steps, n, sizes) for n, steps in _trainings(sizes, effort, ends)]
    for parameters in ends:
        works.append(pack_work("pack", parameters))
        works += [measure_work("measure", dev, sizes, parameters)] * 3
        works.append(Work("check", 2 * dev, 2 * forward(parameters, dev, sizes)))
    works += [measure_work("measure", dev, sizes, big)] * (
        2 if longest else 1
    )  # quantised teachers
    works += scratch_work(sizes, effort, middle, longest=longest)
    works += [measure_work("test", test, sizes, parameters) for parameters in (middle, big)]
    return works


def scratch_work(
    sizes: Sizes, effort: Effort, parameters: int, *, longest: bool = False
) -> list[Work]:
    """The rival from scratch: trained, packed and measured at one width."""
    times = 1.0
    if effort.scratch_plateau:  # doubled once, or as often as it may be, from the start each time
        times = (2.0 ** (MOST_DOUBLINGS + 1) - 1 if longest else 3.0) * len(effort.scratch_rates)
    return [
        train_work("scratch", sizes.steps * times, parameters, sizes),
        pack_work("rival", parameters),
        measure_work("measure", sizes.items["dev"], sizes, parameters),
    ]


def _trainings(sizes: Sizes, effort: Effort, ends: Sequence[int]) -> list[tuple[int, float]]:
    """(parameters, steps) of every training: rung by rung, each half of the one before."""
    trainings, running, done = [], list(sizes.levels), 0.0
    for rung in effort.rungs:
        trainings += [(n, (rung - done) * sizes.steps) for n in running]
        done, keep = rung, math.ceil(len(running) / 2)
        start = (len(running) - keep) // 2
        running = running[start : start + keep]
    if len(ends) > 1:  # every one to the end
        return [(n, float(sizes.steps)) for n in ends]
    return [*trainings, *((n, (1 - done) * sizes.steps) for n in ends)]


def rank_work(teacher: Checkpoint, effort: Effort, level: float, sizes: Sizes) -> Work:
    """Cutting and reading every shape of a level."""
    return _ranking(len(_grid(teacher, level, effort)), round(level * sizes.teacher), sizes)


def _ranking(shapes: int, parameters: int, sizes: Sizes) -> Work:
    looked = forward(parameters, min(RANKING, sizes.items["dev"]), sizes)
    return Work("rank", shapes, shapes * looked)


def teacher_work(parameters: int) -> Work:
    return Work("teacher", 1, 3 * parameters)


def pack_work(kind: str, parameters: int) -> Work:
    """Writing and proving three files; operations here are parameters written."""
    return Work(kind, 1, 3 * parameters)


def forward(parameters: int, items: float, sizes: Sizes) -> float:
    """Operations of reading so many items."""
    return 2.0 * parameters * items * sizes.tokens


def measure_work(kind: str, items: int, sizes: Sizes, parameters: int) -> Work:
    """Answering so many items in the engine."""
    items = items if sizes.generates else min(items, LIKELIHOOD_PROMPTS)
    return Work(kind, items, 2.0 * parameters * items * (sizes.prompt + 4 * sizes.answer))


def train_work(kind: str, steps: float, parameters: int, sizes: Sizes) -> Work:
    """So many steps, and the readings on the way."""
    share = steps / max(1, sizes.steps)
    readings = len(FRACTIONS) * share * forward(parameters, min(SAMPLE, sizes.items["dev"]), sizes)
    return Work(kind, steps, 6.0 * parameters * steps * BATCH * sizes.tokens + readings)


def trained_tokens(sizes: Sizes, effort: Effort) -> float:
    """Tokens that are trained on in the likely course, the rival's among them."""
    middle = sorted(sizes.levels)[len(sizes.levels) // 2]
    steps = sum(steps for _, steps in _trainings(sizes, effort, [middle]))
    scratch = scratch_work(sizes, effort, middle)[0].units
    return (steps + scratch) * BATCH * sizes.tokens


def memory(sizes: Sizes) -> float:
    """Peak bytes: the teacher in fp32, the biggest student with its optimiser, logits, records."""
    student = max(sizes.levels)
    logits = BATCH * sizes.tokens * sizes.vocabulary * 4 * 3
    records = sizes.items["train"] * sizes.tokens * TOP_K * 6
    return BASE_MEMORY + 4.0 * sizes.teacher + 20.0 * student + logits + 2 * records


def disk(sizes: Sizes) -> float:
    """Bytes of the stages: packed files, checkpoints of every training, records."""
    packed = 2 + 2 + 1.1 + 0.7  # bytes a parameter: checkpoint and three files
    records = sizes.items["train"] * sizes.tokens * TOP_K * 6
    middle = sorted(sizes.levels)[len(sizes.levels) // 2]
    trainings = 12.5 * (sum(sizes.levels) + middle)
    return packed * (sizes.teacher + 3 * middle) + trainings + records + 5_000_000


def settle(
    quote: QuoteCard, seconds: dict[str, float], tokens: int, work_folder: Path
) -> QuoteCard:
    """The quote with what was taken: seconds by kind of stage, tokens, memory and disk."""
    quoted = {stage.name: stage.quoted for stage in quote.stages}
    names = [*quoted, *(name for name in seconds if name not in quoted)]
    return quote.model_copy(
        update={
            "stages": [
                QuotedStage(name=name, quoted=quoted.get(name, 0.0), actual=seconds.get(name))
                for name in names
            ],
            "actual_seconds": sum(seconds.values()),
            "actual_tokens": tokens,
            "actual_memory": peak_memory(),
            "actual_disk": bytes_in(work_folder),
        }
    )


def peak_memory() -> int | None:
    """This process's largest resident size so far, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _lengths(tokenizer: Any, item: Item, generates: bool) -> tuple[int, int]:
    prompt = len(prompt_ids(tokenizer, item.messages))
    if item.answer is not None:
        return prompt, len(answer_ids(tokenizer, item.answer))
    return prompt, FREE_TOKENS // 4 if generates else 0


def _grid(teacher: Checkpoint, level: float, effort: Effort) -> list[Candidate]:
    return grid(teacher.family, teacher.shape, teacher.config, level, heads=effort.heads)
