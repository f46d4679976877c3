"""The main job, stage by stage: from a teacher and a task to candidates measured on dev."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flyweight.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from flyweight.distill.losses import Distillation
from flyweight.distill.teacher import answer_rows, record_teacher
from flyweight.distill.trainer import Row, Schedule, train
from flyweight.errors import ParityError, TaskError, UnsupportedFamily
from flyweight.folder import GGUF_NAMES
from flyweight.make.bench import Bench
from flyweight.make.data import Data, prepare
from flyweight.make.options import Options
from flyweight.make.rank import LEVELS, RankedShape, rank_shapes
from flyweight.make.students import (
    BATCH,
    KL,
    LEARNING_RATE,
    Candidate,
    Found,
    compare,
    default_steps,
)
from flyweight.progress import bar, say
from flyweight.runtime.forced import greedy_matches
from flyweight.runtime.measure import measure
from flyweight.runtime.pack import pack_checkpoint
from flyweight.runtime.rounding import rounded
from flyweight.shrink.cut import cut_model
from flyweight.shrink.importance import Importance, measure_importance
from flyweight.tasks.items import Task
from flyweight.tasks.score import Scorer

CALIBRATION = 256  # train items that tell importance
RANKING = 128  # dev items that rank the grid
WIDTHS = (16, 8, 4)  # bits
PARITY_PROMPTS = 100


@dataclass
class Clock:
    """Seconds spent in each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        spent = time.perf_counter() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + spent


class Job:
    """One run of `make` in a scratch folder: `run()` finds and measures the candidates."""

    def __init__(
        self, options: Options, teacher: Checkpoint, task: Task, scorer: Scorer, work: Path
    ):
        self.options, self.teacher, self.task = options, teacher, task
        self.scorer, self.work = scorer, work
        self.clock = Clock()
        self.tokenizer = teacher.tokenizer()
        self.model: Any = teacher.model()
        torch.manual_seed(options.seed)
        torch.set_num_threads(options.threads)

    def rounded(self, candidate: Candidate) -> Any:
        """A candidate's weights in torch, as its GGUF file holds them."""
        student = open_checkpoint(candidate.checkpoint).model()
        return rounded(student, candidate.bits, self.teacher.gguf_map)

    def run(self) -> Found:
        """Score, cut, distil, pack and measure until a size passes on dev or sizes run out."""
        with self.clock.stage("teacher"):
            found = self._measure_teacher()
            self._ratio(found.teacher_dev.scores, found)  # a teacher that scores 0 ends it here
        with self.clock.stage("score"):
            importance = self._importance(found.data)
        with self.clock.stage("record"):
            dev_rows = record_teacher(
                self.model, answer_rows(found.data.dev.examples[:RANKING], 0.0)
            )
            rows = record_teacher(self.model, answer_rows(found.data.train.examples))
        for level in LEVELS:
            with self.clock.stage("rank"):
                ranked = rank_shapes(self.model, self.teacher.family, importance, dev_rows, level)
            if not ranked:
                continue
            found.ranking += ranked
            self._try_shape(ranked[0], importance, rows, found)
            if any(made.ratio.low >= self.options.bar for made in found.candidates):
                break
        if not found.candidates:
            if found.losses:
                raise ParityError(
                    "no student could be exported with the answers of its checkpoint: they are "
                    "undecided. Train longer (--steps) or give more train items."
                )
            raise UnsupportedFamily(f"{self.teacher.name} is too small to be cut by the grid.")
        return found

    def _try_shape(
        self, ranked: RankedShape, importance: Importance, rows: list[Row], found: Found
    ) -> None:
        """Cut, distil, pack and measure one shape."""
        keep = importance.keep(self.teacher.shape, ranked.shape)
        student = cut_model(self.model, self.teacher.family, keep)
        with self.clock.stage("distil"):
            self._distil(student, ranked, rows, found)
        with self.clock.stage("pack"):
            try:
                checkpoint = self._pack(student, ranked, found)
            except ParityError as error:
                say(f"{ranked.parameters / 1e6:.1f}M is not exported: {error}")
                return
        with self.clock.stage("measure"):
            self._measure(student, checkpoint, ranked, found)

    def _measure_teacher(self) -> Found:
        folder = self.work / "teacher"
        save_checkpoint(self.model, self.tokenizer, folder)
        gguf = self._pack_folder(folder, (16,), None)[0][16]

        def write(prompts: list[list[int]], max_tokens: int) -> list[str]:
            with bar("Teacher writes answers", len(prompts)) as running:
                said = measure(gguf, prompts, max_tokens, on_answer=running.advance)
            cut = sum(stop is None for stop in said.stop_ids)
            if cut and self.options.score == "exact":
                raise TaskError(
                    f"{self.task.name}: the teacher did not end {cut} of {len(prompts)} answers "
                    f"within {max_tokens} tokens. Give answers, or ask for shorter ones."
                )
            return [self.tokenizer.decode(ids) for ids in said.answers]

        data = prepare(self.task, self.tokenizer, self.scorer, self.teacher.context, write)
        bench = Bench(self.tokenizer, self.scorer, data.max_tokens)
        return Found(data, bench, gguf, bench.run("teacher on dev", gguf, data.dev, self.model))

    def _importance(self, data: Data) -> Importance:
        sequences = [example.ids.tolist() for example in data.train.examples[:CALIBRATION]]
        return measure_importance(self.model, self.teacher.family, sequences)

    def _distil(self, student: Any, chosen: RankedShape, rows: list[Row], found: Found) -> None:
        steps = self.options.steps or default_steps(len(rows))
        schedule = Schedule(
            steps=steps, batch_size=BATCH, learning_rate=LEARNING_RATE, seed=self.options.seed
        )
        title = f"Distilling {chosen.parameters / 1e6:.1f}M"
        losses = train(student, rows, Distillation(KL), schedule, title)
        found.losses[str(chosen.shape)] = losses
        found.steps = steps
        found.tokens += steps * BATCH * round(np.mean([len(row["input_ids"]) for row in rows]))

    def _pack_folder(self, folder: Path, widths: tuple[int, ...], prompts: Any):
        say(f"Packing {folder.name} at {', '.join(map(str, widths))} bits")
        report = pack_checkpoint(folder, widths, self.teacher.gguf_map, prompts)
        return report.files, report.parity

    def _pack(self, student: Any, chosen: RankedShape, found: Found) -> Path:
        folder = self.work / f"{chosen.parameters / 1e6:.2f}M"
        save_checkpoint(student, self.tokenizer, folder)
        different = dict.fromkeys(map(tuple, found.data.dev.prompts))
        prompts = [list(prompt) for prompt in different][:PARITY_PROMPTS]
        if not self.scorer.needs_generation:
            prompts = None  # plain text has no prompts of its own: neutral ones are taken
        _, found.parity[folder] = self._pack_folder(folder, WIDTHS, prompts)
        return folder

    def _measure(self, student: Any, folder: Path, chosen: RankedShape, found: Found) -> None:
        """Measure every bit width in the runtime, but those that torch shows to be hopeless."""
        dev = found.data.dev
        for bits in WIDTHS:
            model = rounded(student, bits, self.teacher.gguf_map)
            if self.scorer.teacher_forced and found.candidates:
                right = greedy_matches(model, dev.pairs, title=f"Checking {bits} bits")
                if self._ratio(right.astype(float), found).high < self.options.bar:
                    say(f"{bits} bits fall short on dev: not measured further")
                    continue
            gguf = folder / GGUF_NAMES[bits]
            result = found.bench.run(
                f"{chosen.parameters / 1e6:.1f}M, {bits} bits", gguf, dev, model
            )
            ratio = self._ratio(result.scores, found)
            found.candidates.append(
                Candidate(chosen.shape, chosen.parameters, bits, gguf, folder, result, ratio)
            )

    def _ratio(self, scores: np.ndarray, found: Found):
        lower = self.scorer.lower_is_better
        return compare(scores, found.teacher_dev.scores, found.data.dev, self.options, lower)
