"""Handing over: the card, and the model folder around the chosen student."""

from __future__ import annotations

import os
import platform
import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flyweight.card import (
    Card,
    Parity,
    Ranked,
    Recipe,
    Row,
    Scores,
    Source,
    SplitScores,
    TaskCard,
    VerdictCard,
)
from flyweight.distill.teacher import PROMPT_WEIGHT
from flyweight.folder import GGUF_NAMES, MODEL_CARD, REPORT, list_files, new_folder, write_card
from flyweight.make.bench import Result
from flyweight.make.job import Job
from flyweight.make.judge import Trial, score_card, shown_answers, slice_scores
from flyweight.make.model_card import model_card
from flyweight.make.report import write_report
from flyweight.make.students import BATCH, KL, LEARNING_RATE, Candidate, Found, compare
from flyweight.make.words import verdict_sentence

REPORTED_LOSSES = 100  # points of a loss curve that the card keeps
PACKAGES = ("flyweight", "torch", "transformers", "gguf", "xllamacpp", "numpy")


def hand_over(job: Job, found: Found, chosen: Candidate, trial: Trial) -> Card:
    """Write the model folder at `job.options.out` and return its card."""
    with new_folder(job.options.out) as folder:
        for path in chosen.checkpoint.iterdir():
            if path.is_file():
                shutil.copy2(path, folder / path.name)
        card = make_card(job, found, chosen, trial, folder)
        write_card(folder, card)
        (folder / MODEL_CARD).write_text(model_card(card), encoding="utf-8")
        write_report(card, folder / REPORT)
    return card


def make_card(job: Job, found: Found, chosen: Candidate, trial: Trial, folder: Path) -> Card:
    """Everything that was found out, as the card says it."""
    options, data, lower = job.options, found.data, job.scorer.lower_is_better
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
        ),
        recipe=_recipe(job, found, chosen),
        shape=chosen.shape.as_dict(),
        parameters=chosen.parameters,
        bits=chosen.bits,
        verdict=_verdict(job, chosen, trial),
        scores=Scores(
            teacher=SplitScores(
                dev=score_card(found.teacher_dev.scores, data.dev),
                test=score_card(trial.teacher.scores, data.test),
            ),
            student=SplitScores(
                dev=score_card(chosen.dev.scores, data.dev),
                test=score_card(trial.student.scores, data.test),
            ),
        ),
        slices=slice_scores(trial, data.test, lower, 1.0 if options.absolute else options.bar),
        rows=_rows(job, found, chosen),
        ranking=[
            Ranked(
                shape=ranked.shape.as_dict(),
                parameters=ranked.parameters,
                level=ranked.level,
                kl=ranked.kl,
                distilled=str(ranked.shape) in found.losses,
            )
            for ranked in found.ranking
        ],
        losses=_curves(found, chosen),
        parity=_parity(found, chosen),
        answers=shown_answers(trial, data.test),
        files=list_files(folder),
        formats=["safetensors", *(f"gguf-{bits}" for bits in GGUF_NAMES)],
        engines=["transformers", "llama.cpp"],
        versions={name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        device={
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": str(os.cpu_count()),
        },
    )


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


def _recipe(job: Job, found: Found, chosen: Candidate) -> Recipe:
    level = next(ranked.level for ranked in found.ranking if ranked.shape == chosen.shape)
    return Recipe(
        by=job.options.by,
        keep=level,
        steps=found.steps,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        kl=KL,
        prompt_weight=PROMPT_WEIGHT,
        seed=job.options.seed,
        threads=job.options.threads,
        tokens=found.tokens,
        seconds={name: round(spent, 2) for name, spent in job.clock.seconds.items()},
    )


def _verdict(job: Job, chosen: Candidate, trial: Trial) -> VerdictCard:
    options = job.options
    sentence = verdict_sentence(trial.verdict, chosen.bytes, options.score, options.absolute)
    return VerdictCard(
        **vars(trial.verdict),
        absolute=options.absolute,
        opening=trial.opening,
        sentence=sentence,
    )


def _rows(job: Job, found: Found, chosen: Candidate) -> list[Row]:
    data, lower = found.data, job.scorer.lower_is_better
    itself = compare(
        found.teacher_dev.scores, found.teacher_dev.scores, data.dev, job.options, lower
    )
    teacher = Row(
        name="teacher, 16 bits",
        role="teacher",
        bits=16,
        shape=job.teacher.shape.as_dict(),
        parameters=job.teacher.parameters,
        bytes=found.teacher_gguf.stat().st_size,
        dev=score_card(found.teacher_dev.scores, data.dev),
        dev_ratio=itself.estimate,
        dev_low=itself.estimate,
        **_costs(found.teacher_dev),
    )
    students = [
        Row(
            name=candidate.name,
            role="candidate",
            bits=candidate.bits,
            shape=candidate.shape.as_dict(),
            parameters=candidate.parameters,
            bytes=candidate.bytes,
            dev=score_card(candidate.dev.scores, data.dev),
            dev_ratio=candidate.ratio.estimate,
            dev_low=candidate.ratio.low,
            chosen=candidate is chosen,
            **_costs(candidate.dev),
        )
        for candidate in sorted(found.candidates, key=lambda made: -made.bytes)
    ]
    return [teacher, *students]


def _costs(result: Result) -> dict[str, Any]:
    cost = result.cost
    return {
        "latency_p50": cost.latency_p50,
        "latency_p95": cost.latency_p95,
        "tokens_per_second": cost.decode_tokens_per_second,
        "prompt_tokens_per_second": cost.prompt_tokens_per_second,
        "peak_memory": cost.peak_memory_bytes,
        "threads": cost.threads,
    }


def _parity(found: Found, chosen: Candidate) -> Parity:
    report = found.parity[chosen.checkpoint]
    ties = [
        f"prompt {tie.prompt + 1}, token {tie.position + 1}: {tie.nats:.3f} nats"
        for tie in report.near_ties
    ]
    return Parity(prompts=report.prompts, equal=report.equal, near_ties=ties)


def _curves(found: Found, chosen: Candidate) -> dict[str, list[float]]:
    """Loss curves by shape, the chosen one's first."""
    names = sorted(found.losses, key=lambda name: name != str(chosen.shape))
    return {name: _thinned(found.losses[name]) for name in names}


def _thinned(losses: list[float]) -> list[float]:
    """The curve as at most REPORTED_LOSSES means of neighbouring steps."""
    width = max(1, -(-len(losses) // REPORTED_LOSSES))
    parts = [losses[i : i + width] for i in range(0, len(losses), width)]
    return [round(sum(part) / len(part), 5) for part in parts]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
