"""The quote: what a job will take, before it runs; and beside it, afterwards, what it took."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from flyweight.card import QuoteCard, QuotedStage
from flyweight.folder import bytes_in
from flyweight.make.course import (
    likely_courses,
    longest_course,
    shortest_course,
    trained_tokens,
    works_of,
)
from flyweight.make.effort import Effort
from flyweight.make.footprint import LIBRARIES, disk, working_memory
from flyweight.make.machine import Machine
from flyweight.make.rates import ONNX, Rates, Work
from flyweight.make.workload import Sizes


def make_quote(sizes: Sizes, effort: Effort, machine: Machine) -> QuoteCard:
    """What a job is expected to take on a machine: on average over the courses that it may take."""
    rates, stages, tokens, files = machine.rates(), dict[str, float](), 0.0, 0.0
    slower = machine.factor("time")
    for chance, course in likely_courses(sizes, effort, machine.courses):
        works = works_of(course, sizes, effort)
        for kind, seconds in _by_kind(works, rates).items():
            stages[kind] = stages.get(kind, 0.0) + chance * slower * seconds
        tokens += chance * trained_tokens(works)
        files += chance * disk(sizes, course)
    shortest = works_of(shortest_course(sizes, effort), sizes, effort)
    longest = works_of(longest_course(sizes, effort), sizes, effort)
    return QuoteCard(
        machine=machine.name,
        source="measured" if machine.records else "assumed",
        jobs=machine.jobs,
        seconds=sum(stages.values()),
        seconds_shortest=slower * seconds_of(shortest, rates),
        seconds_longest=slower * seconds_of(longest, rates),
        tokens=round(tokens),
        memory=round(LIBRARIES + working_memory(sizes) * machine.factor("memory")),
        disk=round(files * machine.factor("disk")),
        stages=[QuotedStage(name=name, quoted=quoted) for name, quoted in stages.items()],
    )


def seconds_of(works: Sequence[Work], rates: Rates) -> float:
    """How long these stages are likely to take in all."""
    return sum(map(rates.seconds, works))


def settle(
    quote: QuoteCard, as_it_went: float, seconds: dict[str, float], tokens: int, work_folder: Path
) -> QuoteCard:
    """The quote with what was taken: seconds by kind of stage, tokens, memory and disk.

    `as_it_went`: what would have been quoted for the course that the job took.
    """
    quoted = {stage.name: stage.quoted for stage in quote.stages}
    names = [*quoted, *(name for name in seconds if name not in quoted)]
    return quote.model_copy(
        update={
            "stages": [
                QuotedStage(name=name, quoted=quoted.get(name, 0.0), actual=seconds.get(name))
                for name in names
            ],
            "seconds_as_it_went": as_it_went,
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


def _by_kind(works: Sequence[Work], rates: Rates) -> dict[str, float]:
    total: dict[str, float] = {}
    for work in works:
        kind = work.kind.removesuffix(ONNX)
        total[kind] = total.get(kind, 0.0) + rates.seconds(work)
    return total
