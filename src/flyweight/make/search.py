"""The search for the smallest shape that passes: successive halving on recovery curves.

Every level's best shapes are trained for a short while; after each rung half of them drop out, and
those stay that are most likely the answer: they pass, and nothing smaller does. A short training is
the beginning of the full one, so nothing that stays is trained twice. The last ones are trained to
the end and measured in the runtime, until one passes and no smaller one is likely to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from flyweight.errors import FlyweightError, OptionError, ParityError, UnsupportedFamily
from flyweight.make.curve import ANSWERS, BITS, NOISE, Forecast, forecast
from flyweight.make.job import Job
from flyweight.make.options import By
from flyweight.make.probe import sample_of
from flyweight.make.students import Contender, Found, passes, size_of
from flyweight.make.trials import distillation, learn, measure_contender
from flyweight.progress import say
from flyweight.tasks.limits import foreseen_margin

DOUBT = 1.15  # how much more than a budget may be foretold of what is still tried
HOPELESS = 0.02  # the chance to pass below which nothing is trained on


def search(job: Job) -> Found:
    """Rank, train and measure shapes until the smallest that passes on dev is found.

    Raises UnsupportedFamily for a teacher too small to be cut, ParityError where no student can be
    exported faithfully, OptionError where none is within the budget.
    """
    job.ratio(job.teacher_dev.scores)  # a teacher that scores 0 ends it here
    found = line_up(job)
    survivors = found.contenders
    for number, rung in enumerate(job.effort.rungs):
        for contender in survivors:
            advance(job, contender, max(1, round(rung * contender.full_steps)))
        survivors = halve(job, survivors, first=number == 0)
    finish(job, found, survivors)
    if all(job.options.budgets.exceeded(each.figures) for each in found.candidates):
        raise _nothing(job, found)
    return found


def _nothing(job: Job, found: Found) -> FlyweightError:
    """Why no student could be measured, as the error to raise."""
    budgets = job.options.budgets
    whys = [f"{each.label}: {each.excluded}" for each in found.contenders if each.excluded]
    whys += [f"{each.name}: {budgets.exceeded(each.figures)}" for each in found.candidates]
    why = "; ".join(whys)
    if budgets:
        return OptionError(
            f"nothing was made within the budgets ({why}). Give larger ones, or a smaller teacher."
        )
    return ParityError(
        f"no student could be exported with the answers of its checkpoint ({why}). Train longer "
        "(--steps) or give more train items."
    )


def line_up(job: Job) -> Found:
    """The contenders: the best shapes of every level, the smallest first."""
    ranking, contenders, seen = [], [], set()
    for level in job.effort.levels:
        shapes = job.ranked(level)
        ranking += shapes
        fresh = [
            Contender(ranked, job.steps, job.forecasts(ranked.shape))
            for ranked in shapes
            if ranked.shape not in seen
        ]
        hopeful = [each for each in fresh if may_fit(each, job)] or fresh
        chosen = sorted(hopeful, key=lambda each: drawback(each, job.options.by))
        chosen = chosen[: job.effort.width]
        seen |= {each.ranked.shape for each in chosen}
        contenders += chosen
    if not contenders and job.options.budgets:
        raise OptionError(
            "nothing was made within the budgets (the grid has no shape that is so small). Give "
            "larger ones, or a smaller teacher."
        )
    if not contenders:
        raise UnsupportedFamily(f"{job.teacher.name} is too small to be cut by the grid.")
    contenders.sort(key=lambda each: smallest(each, job.options.by))
    fitting = [each for each in contenders if may_fit(each, job)]
    return Found(ranking, fitting or contenders[:1])


def may_fit(contender: Contender, job: Job) -> bool:
    """Whether one of its files may be within the budgets, as far as is foretold."""
    budgets = job.options.budgets
    if contender.ranked.parameters > budgets.most_parameters(min(job.form.files)):
        return False
    roomy = replace(
        budgets,
        bytes=None,
        memory=budgets.memory and budgets.memory * DOUBT,
        latency=budgets.latency and budgets.latency * DOUBT,
        speed=budgets.speed and budgets.speed / DOUBT,
    )
    foretold = contender.foretold.values()
    return not foretold or any(not roomy.exceeded(each) for each in foretold)


def smallest(contender: Contender, by: By) -> float:
    """What the smallest of its files is foretold to take: latency, or memory; else parameters."""
    if by == "bytes":
        return contender.ranked.parameters
    return min(size_of(each, by) for each in contender.foretold.values())


def drawback(contender: Contender, by: By) -> float:
    """What a shape is judged by within its level: nats from the teacher, by latency or memory
    times what it takes, so that neither is bought at any price.
    """
    return contender.ranked.kl * (1.0 if by == "bytes" else smallest(contender, by))


def advance(job: Job, contender: Contender, step: int) -> None:
    """Train a contender to `step`, and look where its curve is heading."""
    if step <= contender.step:
        return
    trained = learn(job, distillation(job, contender), step)
    contender.step = trained.step
    contender.losses = trained.losses
    contender.steps = [at for at, _ in trained.readings]
    name = "score" if job.options.absolute else "share"
    contender.shares = [reading[name] for _, reading in trained.readings]
    contender.forecast = None
    if not contender.finished:
        sample = len(sample_of(job.data.dev))
        contender.forecast = forecast(
            contender.steps,
            contender.shares,
            contender.full_steps,
            sample,
            ANSWERS if job.scorer.needs_generation else BITS,
        )
        say(f"{contender.label}: heading for {contender.forecast.share:.1%} of the teacher's score")


def chance(job: Job, contender: Contender) -> float:
    """The chance that a contender passes on dev."""
    if contender.candidates:
        return float(any(passes(made, job.options) for made in contender.candidates))
    if contender.excluded:
        return 0.0
    if contender.forecast is None:
        return 0.5
    return contender.forecast.chance(needed_share(job))


def chances_of(job: Job, contenders: Sequence[Contender]) -> list[float]:
    """The chance of each to pass, of those that dropped out not above what is known of their like.

    One that fell behind another of its level was the worse of two then; a forecast that was made so
    early says little, and of the better one more is known by now.
    """
    own = [chance(job, each) for each in contenders]
    for place, each in enumerate(contenders):
        like = [other for other in contenders if other.ranked.level == each.ranked.level]
        ahead = [prospect(job, other) for other in like if other.step > each.step]
        if ahead and not each.finished:
            own[place] = min(own[place], max(ahead))
    return own


def prospect(job: Job, contender: Contender) -> float:
    """The chance that another one like this passes, if it ends as this one does or will."""
    if not contender.finished or not contender.shares:
        return chance(job, contender)
    left = max(1e-4, 1 - contender.shares[-1])
    return max(chance(job, contender), Forecast(math.log(left), NOISE).chance(needed_share(job)))


def needed_share(job: Job) -> float:
    """The dev share whose lower limit just reaches the bar, roughly: a binomial's for scores of 0
    and 1; bits of likelihood differ so little between two models that the bar itself will do.
    """
    bar = job.options.bar
    if not job.scorer.needs_generation:
        return bar
    dev = job.data.dev
    parts = ([dev.groups[place] for place in places] for places in dev.by_task.values())
    return min(1.0, bar + max(foreseen_margin(groups, bar) for groups in parts))


def likely_answers(chances: Sequence[float]) -> list[float]:
    """For shapes from small to big: the chance that each passes and none smaller does."""
    smaller_fail = np.cumprod([1.0, *(1 - np.asarray(chances, dtype=float))])[:-1]
    return (np.asarray(chances, dtype=float) * smaller_fail).tolist()


def halve(job: Job, contenders: Sequence[Contender], *, first: bool) -> list[Contender]:
    """The half (rounded up) that stays, the smallest first (by what the job calls small).

    After the first rung the better half of each level stays: shapes of one size are compared with
    each other by share and loss. Then the half that most likely holds the answer.
    """
    by_level: dict[float, list[Contender]] = {}
    for contender in contenders:
        by_level.setdefault(contender.ranked.level, []).append(contender)
    if first and len(by_level) < len(contenders):
        kept = []
        for level in by_level.values():
            level.sort(key=lambda each: (-_last(each.shares), float(np.mean(each.losses[-20:]))))
            kept += level[: math.ceil(len(level) / 2)]
    else:
        likely = likely_answers([chance(job, each) for each in contenders])
        order = sorted(range(len(contenders)), key=lambda i: -likely[i])
        kept = [contenders[i] for i in order[: math.ceil(len(contenders) / 2)]]
    return sorted(kept, key=lambda each: smallest(each, job.options.by))


def finish(job: Job, found: Found, survivors: Sequence[Contender]) -> None:
    """Train to the end and measure, the likeliest answer first, until it is found."""
    while True:
        likely = chances_of(job, found.contenders)
        best = next_to_finish(found.contenders, likely, survivors, job.effort.patience)
        if best is None:
            break
        advance(job, best, best.full_steps)
        measure_contender(job, best)
    for each in found.contenders:
        each.hopeless = not each.finished and chance(job, each) < HOPELESS


def next_to_finish(
    contenders: Sequence[Contender],
    chances: Sequence[float],
    survivors: Sequence[Contender],
    patience: float,
) -> Contender | None:
    """Which of the contenders (small to big) to train to the end next; None: the search is over.

    Once one passes, only smaller ones are of interest, as long as one of them passes with a chance
    of at least `patience`: what forecasts do not see they all do not see, so that many small
    chances are no large one. Survivors go before those that dropped out.
    """
    measured = [bool(each.candidates) for each in contenders]
    passed = [i for i, done in enumerate(measured) if done and chances[i] == 1.0]
    still = [
        i
        for i, each in enumerate(contenders[: passed[0] if passed else None])
        if not measured[i] and not each.excluded
    ]
    likely = likely_answers(chances)
    hopeful = [i for i in still if chances[i] >= HOPELESS]
    if passed and max((chances[i] for i in hopeful), default=0.0) < patience:
        return None
    if not hopeful:  # the biggest comes nearest, and something has to be measured
        return contenders[still[-1]] if still and not any(measured) else None
    preferred = [i for i in hopeful if contenders[i] in survivors] or hopeful
    return contenders[max(preferred, key=lambda i: likely[i])]


def _last(shares: Sequence[float]) -> float:
    return shares[-1] if shares else 0.0
