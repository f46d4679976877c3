"""Handing over: the card, and the model folder around the chosen student."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flyweight.card import (
    Card,
    Forecast,
    QuoteCard,
    Ranked,
    Recipe,
    Recovery,
    Row,
    Scores,
    SliceScore,
    Source,
    SplitScores,
    TaskCard,
    VerdictCard,
)
from flyweight.distill.objectives import KL
from flyweight.errors import TaskError
from flyweight.folder import (
    MODEL_CARD,
    REPORT,
    SEAL,
    list_files,
    new_folder,
    write_card,
    write_scores,
)
from flyweight.make.bench import Result
from flyweight.make.budget import Figures
from flyweight.make.effort import BATCH
from flyweight.make.job import Job
from flyweight.make.judge import (
    Trial,
    score_card,
    shown_answers,
    slice_scores,
    task_scores,
    test_scores,
)
from flyweight.make.machine import processor
from flyweight.make.model_card import model_card
from flyweight.make.report import write_report
from flyweight.make.results import PARITY, load_parity
from flyweight.make.stickers import labelled, put_sticker, sticker_of
from flyweight.make.students import (
    Candidate,
    Contender,
    Found,
    measured_figures,
    passes,
    ratios,
)
from flyweight.make.words import verdict_sentence
from flyweight.runtime.threads import cores

STAGE_FILES = (SEAL, PARITY)  # of a stage, not of a model
REPORTED_LOSSES = 100  # points of a loss curve that the card keeps
PACKAGES = ("flyweight", "torch", "transformers", "numpy")  # beside those of a form


@dataclass(frozen=True)
class Outcome:
    """How a job ended: what was found, chosen and tried, its rivals, and the settled quote."""

    found: Found
    chosen: Candidate
    rivals: Sequence[Candidate]
    trial: Trial
    quote: QuoteCard


def hand_over(job: Job, outcome: Outcome) -> Card:
    """Write the model folder at `job.options.out` and return its card."""
    with new_folder(job.options.out) as folder:
        for path in outcome.chosen.checkpoint.iterdir():
            if path.is_file() and path.name not in STAGE_FILES:
                shutil.copy2(path, folder / path.name)
        write_scores(folder, test_scores(job, outcome.trial))
        card = make_card(job, outcome, folder)
        metered = outcome.chosen.dev.cost.metered
        if metered is not None:
            made = outcome.quote.actual_energy
            card.sticker = sticker_of(labelled(card), metered, job.options.country, made)
            put_sticker(folder, card.sticker)
        write_card(folder, card)
        (folder / MODEL_CARD).write_text(model_card(card), encoding="utf-8")
        write_report(card, folder / REPORT)
    return card


def make_card(job: Job, outcome: Outcome, folder: Path) -> Card:
    """Everything that was found out, as the card says it."""
    options, data = job.options, job.data
    found, chosen, trial = outcome.found, outcome.chosen, outcome.trial
    return Card(
        name=options.out.absolute().name,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        teacher=_source(job),
        task=TaskCard(
            name=job.task.name,
            sha256=job.task.sha256,
            test_sha256=job.task.test_sha256,
            score=options.score,
            **{name: len(split) for name, split in data.splits.items()},
            system=job.task.system,
            one_turn=job.task.one_turn,
        ),
        recipe=_recipe(job, outcome),
        shape=chosen.shape.as_dict(),
        parameters=chosen.parameters,
        bits=chosen.bits,
        verdict=_verdict(job, chosen, trial),
        scores=Scores(
            teacher=SplitScores(
                dev=score_card(job.teacher_dev.scores, data.dev),
                test=score_card(trial.teacher.scores, data.test),
            ),
            student=SplitScores(
                dev=score_card(chosen.dev.scores, data.dev),
                test=score_card(trial.student.scores, data.test),
            ),
        ),
        slices=_slices(job, trial),
        tasks=task_scores(job, trial),
        rows=_rows(job, outcome),
        ranking=_ranking(found),
        losses=_curves(found, chosen),
        recovery=[_recovery(each) for each in found.contenders],
        quote=outcome.quote,
        kept_layers=job.importance.keep(job.base.shape, chosen.shape).layers.tolist(),
        parity=load_parity(chosen.checkpoint),
        answers=shown_answers(trial, data.test),
        files=list_files(folder),
        formats=["safetensors", *job.form.formats],
        engines=[job.form.in_transformers, *job.form.engines],
        versions={name: version(name) for name in (*PACKAGES, *job.form.packages)}
        | {"python": platform.python_version()},
        device={
            "system": f"{platform.system()} {platform.machine()}",
            "processor": processor(),
            "cores": str(cores()),
        },
    )


def _slices(job: Job, trial: Trial) -> list[SliceScore]:
    if job.scorer.whole is not None:  # what is no mean over items cannot be told by slice
        return []
    bar = 1.0 if job.options.absolute else job.options.bar
    return slice_scores(trial, job.data.test, job.scorer.lower_is_better, bar)


def _source(job: Job) -> Source:
    teacher = job.teacher
    return Source(
        name=teacher.name,
        commit=teacher.commit,
        sha256=teacher.sha256(),
        tokenizer_sha256=teacher.tokenizer_sha256(),
        parameters=teacher.parameters,
        bytes=teacher.bytes,
        shape=teacher.shape.as_dict(),
    )


def _recipe(job: Job, outcome: Outcome) -> Recipe:
    ranking, chosen, budgets = outcome.found.ranking, outcome.chosen, job.options.budgets
    level = next(ranked.level for ranked in ranking if ranked.shape == chosen.shape)
    return Recipe(
        by=job.options.by,
        effort=job.options.effort,
        budget=None if budgets.bytes is None else round(budgets.bytes),
        budgets=budgets.as_dict(),
        device=_device_name(job),
        keep=level,
        steps=job.steps,
        batch_size=BATCH,
        learning_rate=job.form.learning_rate(chosen.shape.hidden),
        kl=KL,
        prompt_weight=job.form.prompt_weight,
        seed=job.options.seed,
        threads=job.options.threads,
        tokens=outcome.quote.actual_tokens or 0,
        rounded_for=len(job.form.texts(job)),
        seconds={name: round(spent, 2) for name, spent in job.store.seconds.items()},
    )


def _device_name(job: Job) -> str:
    """This, or the processor of the machine that a profile is of."""
    elsewhere = job.foreteller if job.options.device != "this" else None
    return elsewhere.device.processor if elsewhere else "this"


def _verdict(job: Job, chosen: Candidate, trial: Trial) -> VerdictCard:
    options = job.options
    sentence = verdict_sentence(trial.verdict, chosen.bytes, options.score, options.absolute)
    return VerdictCard(
        **vars(trial.verdict),
        absolute=options.absolute,
        opening=trial.opening,
        sentence=sentence,
    )


def _rows(job: Job, outcome: Outcome) -> list[Row]:
    itself = job.ratio(job.teacher_dev.scores)
    bits, file = next(iter(job.big.files.items()))
    size = (job.teacher_folder / file).stat().st_size
    foretold = job.forecasts(job.teacher.shape).get(bits)
    takes = measured_figures(job.teacher.parameters, size, job.teacher_dev.cost)
    if foretold is not None and job.options.device != "this":
        takes = replace(foretold, bytes=size)
    beyond = job.options.budgets.exceeded(takes)
    reaches = not job.options.absolute or itself.low >= job.options.bar
    teacher = Row(
        name=f"teacher, {bits} bits",
        role="teacher",
        bits=bits,
        shape=job.teacher.shape.as_dict(),
        parameters=job.teacher.parameters,
        bytes=size,
        dev=score_card(job.teacher_dev.scores, job.data.dev),
        dev_ratio=itself.estimate,
        dev_low=itself.low if job.options.absolute else itself.estimate,
        passes=reaches and not beyond,
        beyond=beyond,
        forecast=_forecast(foretold),
        **_costs(job.teacher_dev),
    )
    students = sorted(outcome.found.candidates, key=lambda made: -made.bytes)
    return [teacher, *(_row(job, made, outcome.chosen) for made in [*students, *outcome.rivals])]


def _row(job: Job, candidate: Candidate, chosen: Candidate) -> Row:
    return Row(
        name=candidate.name,
        role=candidate.role,
        note=candidate.note,
        passes=passes(candidate, job.options),
        beyond=job.options.budgets.exceeded(candidate.figures),
        bits=candidate.bits,
        shape=candidate.shape.as_dict(),
        parameters=candidate.parameters,
        bytes=candidate.bytes,
        dev=score_card(candidate.dev.scores, job.data.dev),
        dev_ratio=candidate.ratio.estimate,
        dev_low=candidate.ratio.low,
        chosen=candidate is chosen,
        chosen_over=_over(job, chosen, candidate),
        forecast=_forecast(candidate.forecast),
        **_costs(candidate.dev),
    )


def _over(job: Job, chosen: Candidate, rival: Candidate) -> float | None:
    """How good the chosen model is beside the same shape from scratch, at least: paired on dev.

    Of several tasks on the one where it gains least; None for other rivals, or one that scores 0.
    """
    if rival.role != "from scratch":
        return None
    scores, options = (chosen.dev.scores, rival.dev.scores), replace(job.options, absolute=False)
    try:
        found = ratios(*scores, job.data.dev, options, job.scorer.lower_is_better)
    except TaskError:
        return None
    return min(each.low for each in found)


def _forecast(found: Figures | None) -> Forecast | None:
    if found is None:
        return None
    told = asdict(found)
    return Forecast(**{name: told[name] for name in Forecast.model_fields})


def _ranking(found: Found) -> list[Ranked]:
    trained = {contender.ranked.shape for contender in found.contenders}
    return [
        Ranked(
            shape=ranked.shape.as_dict(),
            parameters=ranked.parameters,
            level=ranked.level,
            kl=ranked.kl,
            distilled=ranked.shape in trained,
        )
        for ranked in found.ranking
    ]


def _recovery(contender: Contender) -> Recovery:
    ahead = contender.forecast
    return Recovery(
        shape=contender.ranked.shape.as_dict(),
        parameters=contender.ranked.parameters,
        level=contender.ranked.level,
        steps=contender.steps,
        shares=[round(share, 5) for share in contender.shares],
        full_steps=contender.full_steps,
        predicted=round(ahead.share, 4) if ahead else None,
        predicted_low=round(ahead.low, 4) if ahead else None,
        predicted_high=round(ahead.high, 4) if ahead else None,
        fate=contender.fate,
    )


def _costs(result: Result) -> dict[str, Any]:
    cost = result.cost
    return {
        "latency_p50": cost.latency_p50,
        "latency_p95": cost.latency_p95,
        "tokens_per_second": cost.tokens_per_second,
        "prompt_tokens_per_second": cost.prompt_tokens_per_second,
        "texts_per_second": cost.texts_per_second,
        "peak_memory": cost.peak_memory_bytes,
        "threads": cost.threads,
        "engine": cost.engine,
        "joules": cost.metered and cost.metered.joules,
    }


def _curves(found: Found, chosen: Candidate) -> dict[str, list[float]]:
    """Loss curves by shape, the chosen one's first."""
    order = sorted(found.contenders, key=lambda each: each.ranked.shape != chosen.shape)
    return {str(each.ranked.shape): _thinned(each.losses) for each in order}


def _thinned(losses: list[float]) -> list[float]:
    """The curve as at most REPORTED_LOSSES means of neighbouring steps."""
    width = max(1, -(-len(losses) // REPORTED_LOSSES))
    parts = [losses[i : i + width] for i in range(0, len(losses), width)]
    return [round(sum(part) / len(part), 5) for part in parts]
