"""The quote: what a job will take, before it runs; and beside it, afterwards, what it took."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flyweight.card import QuoteCard, QuotedStage
from flyweight.folder import bytes_in
from flyweight.make.course import likely_courses, longest_course, trained_tokens, works_of
from flyweight.make.effort import Effort
from flyweight.make.footprint import LIBRARIES, disk, working_memory
from flyweight.make.machine import Machine
from flyweight.make.rates import Rates, Work, spread
from flyweight.make.workload import Sizes

# How far a quote is off, as a logarithm, before past ones tell: by where its rates come from.
GUESSED_MISS = {"assumed": 0.6, "measured": 0.25}
WITHIN = 1.28  # deviations on either side that hold 80 %


def make_quote(sizes: Sizes, effort: Effort, machine: Machine) -> QuoteCard:
    """What a job is expected to take on a machine, over the courses that it may take.

    The range is as wide as past quotes on this machine missed by, or as the courses lie apart.
    """
    rates, stages, tokens, files = machine.rates(), dict[str, float](), 0.0, 0.0
    courses = likely_courses(sizes, effort, machine.courses)
    totals = []
    for chance, course in courses:
        works = works_of(course, sizes, effort)
        by_kind = _by_kind(works, rates)
        totals.append(sum(by_kind.values()))
        for kind, seconds in by_kind.items():
            stages[kind] = stages.get(kind, 0.0) + chance * seconds
        tokens += chance * trained_tokens(works)
        files += chance * disk(sizes, course)
    seconds = sum(stages.values())
    source = "measured" if machine.jobs else "assumed"
    apart = _apart([chance for chance, _ in courses], totals)
    wide = math.exp(WITHIN * max(apart, spread(machine.misses, GUESSED_MISS[source])))
    longest = works_of(longest_course(sizes), sizes, effort, longest=True)
    return QuoteCard(
        machine=machine.name,
        source=source,
        jobs=machine.jobs,
        seconds=seconds,
        seconds_low=seconds / wide,
        seconds_high=seconds * wide,
        seconds_longest=sum(_by_kind(longest, rates).values()),
        tokens=round(tokens),
        memory=round(LIBRARIES + working_memory(sizes) * machine.factor("memory")),
        disk=round(files * machine.factor("disk")),
        stages=[QuotedStage(name=name, quoted=quoted) for name, quoted in stages.items()],
    )


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


def missed_by(quote: QuoteCard) -> float | None:
    """The logarithm of taken over quoted seconds; None where one is unknown or was assumed."""
    if quote.source == "assumed" or not quote.actual_seconds or quote.seconds <= 0:
        return None
    return math.log(quote.actual_seconds / quote.seconds)


def peak_memory() -> int | None:
    """This process's largest resident size so far, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _apart(chances: Sequence[float], totals: Sequence[float]) -> float:
    """The standard deviation of the logarithms of totals that have these chances."""
    logs = np.log(totals)
    return float(
        np.sqrt(np.average((logs - np.average(logs, weights=chances)) ** 2, weights=chances))
    )


def _by_kind(works: Sequence[Work], rates: Rates) -> dict[str, float]:
    total: dict[str, float] = {}
    for work in works:
        total[work.kind] = total.get(work.kind, 0.0) + rates.seconds(work)
    return total
