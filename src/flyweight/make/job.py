"""One run of `make`: what it works on, and the stages that every search needs.

Whatever takes longer than a second is a stage of the store, so that it is found done by the next
run that asks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flyweight.checkpoint import Checkpoint, open_checkpoint, round_weights, save_checkpoint
from flyweight.distill.cache import Record, record
from flyweight.distill.resume import Reading
from flyweight.distill.teacher import PROMPT_WEIGHT, answer_rows
from flyweight.distill.trainer import Row
from flyweight.distill.wish import Wish
from flyweight.errors import TaskError
from flyweight.folder import GGUF_NAMES, sha256_of
from flyweight.make import results, workload
from flyweight.make.bench import Bench, Result
from flyweight.make.data import Data, prepare
from flyweight.make.effort import EFFORTS, WIDTHS, Effort
from flyweight.make.options import Options
from flyweight.make.probe import share_reader
from flyweight.make.rank import RankedShape, divergence, rank_shapes
from flyweight.make.rates import Work
from flyweight.make.store import Store
from flyweight.make.students import compare
from flyweight.make.workload import CALIBRATION, RANKING, Sizes
from flyweight.progress import bar, say
from flyweight.runtime.measure import measure
from flyweight.runtime.pack import pack_checkpoint
from flyweight.runtime.rounding import rounded
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.importance import Importance
from flyweight.tasks.encode import Example
from flyweight.tasks.items import Task
from flyweight.tasks.score import Scorer
from flyweight.tasks.statistics import Ratio


class Job:
    """A teacher, a task, wishes, and the store of what was found out about them."""

    def __init__(
        self,
        options: Options,
        teacher: Checkpoint,
        task: Task,
        scorer: Scorer,
        sizes: Sizes,
        store: Store,
    ) -> None:
        self.options, self.teacher, self.task = options, teacher, task
        self.scorer, self.sizes, self.store = scorer, sizes, store
        self.steps_taken: dict[Path, int] = {}  # by training
        self._hashes: dict[Path, str] = {}
        self.tokenizer = teacher.tokenizer()
        torch.manual_seed(options.seed)
        torch.set_num_threads(options.threads)

    @cached_property
    def model(self) -> Any:
        """The teacher in torch, fp32, rounded as its 16-bit file is; loaded when first needed."""
        model = self.teacher.model()
        round_weights(model)
        return model

    @property
    def effort(self) -> Effort:
        return EFFORTS[self.options.effort]

    @property
    def steps(self) -> int:
        """The steps of a distillation that is not broken off."""
        return self.sizes.steps

    @cached_property
    def source(self) -> dict[str, Any]:
        """What every result of the teacher depends on, whatever the task."""
        return self.teacher.identity() | {"threads": self.options.threads}

    @cached_property
    def origin(self) -> dict[str, Any]:
        """What every result of the teacher on this task depends on."""
        return self.source | {
            "task": self.task.sha256,
            "score": self.options.score,
            "scorer": self.scorer.source_sha256(),
            "prompts": self._prompting(),
        }

    def _prompting(self) -> list[str]:
        """What, beside its vocabulary, decides the ids that the tokenizer gives a chat."""
        names = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
        files = [self.teacher.path / name for name in names]
        return [sha256_of(file) for file in files if file.exists()]

    # ------------------------------------------------------------------ the teacher

    @cached_property
    def teacher_folder(self) -> Path:
        """The teacher's checkpoint with its GGUF at 16, 8 and 4 bits."""

        def make(folder: Path) -> None:
            save_checkpoint(self.model, self.tokenizer, folder)
            self.pack(folder, "the teacher")

        work = workload.teacher_work(self.teacher.parameters)
        return self.store.stage("teacher", self.source, make, work=work)

    def pack(
        self, folder: Path, label: str, prompts: Sequence[Sequence[int]] | None = None
    ) -> None:
        """Write a checkpoint's GGUF files into its folder, proven (on neutral prompts if None)."""
        say(f"Packing {label} at {', '.join(map(str, WIDTHS))} bits")
        report = pack_checkpoint(folder, WIDTHS, self.teacher.gguf_map, prompts)
        results.save_parity(folder, report.parity)

    @cached_property
    def data(self) -> Data:
        """The task, tokenised, every item with an answer."""
        return prepare(
            self.task, self.tokenizer, self.scorer, self.teacher.context, self._write_answers
        )

    def _write_answers(self, prompts: list[list[int]], max_tokens: int) -> list[str]:
        """What the teacher says where the task holds no answer."""

        def make(folder: Path) -> None:
            gguf = self.teacher_folder / GGUF_NAMES[16]
            with bar("Teacher writes answers", len(prompts)) as running:
                said = measure(gguf, prompts, max_tokens, on_answer=running.advance)
            cut = sum(stop is None for stop in said.stop_ids)
            if cut and self.options.score == "exact":
                raise TaskError(
                    f"{self.task.name}: the teacher did not end {cut} of {len(prompts)} answers "
                    f"within {max_tokens} tokens. Give answers, or ask for shorter ones."
                )
            answers = [self.tokenizer.decode(ids) for ids in said.answers]
            results.write_json(folder / "answers.json", answers)

        work = workload.measure_work("answers", len(prompts), self.sizes, self.teacher.parameters)
        inputs = self.origin | {"max_tokens": max_tokens}
        folder = self.store.stage("answers", inputs, make, work=work)
        return results.read_json(folder / "answers.json")

    @cached_property
    def bench(self) -> Bench:
        return Bench(self.tokenizer, self.scorer, self.data.max_tokens)

    def measured(
        self,
        kind: str,
        title: str,
        gguf: Path,
        split: str,
        parameters: int,
        model: Callable[[], Any],
    ) -> Result:
        """One file's scores and costs on a split, measured once; `model()` gives it in torch."""
        part = self.data.splits[split]

        def make(folder: Path) -> None:
            weights = None if self.scorer.needs_generation else model()
            results.save_result(folder, self.bench.run(title, gguf, part, weights))

        inputs = self.origin | {
            "gguf": self.hash(gguf), "split": split, "max_tokens": self.data.max_tokens,
        }  # fmt: skip
        work = workload.measure_work(kind, len(part), self.sizes, parameters)
        return results.load_result(self.store.stage(kind, inputs, make, work=work))

    @cached_property
    def teacher_dev(self) -> Result:
        """The teacher at 16 bits on dev."""
        gguf = self.teacher_folder / GGUF_NAMES[16]
        return self.measured(
            "measure", "teacher on dev", gguf, "dev", self.teacher.parameters, lambda: self.model
        )

    def ratio(self, scores: np.ndarray) -> Ratio:
        """A student's dev scores against the teacher's."""
        lower = self.scorer.lower_is_better
        return compare(scores, self.teacher_dev.scores, self.data.dev, self.options, lower)

    # ------------------------------------------------------------------ what is cut, and for what

    @cached_property
    def importance(self) -> Importance:
        """What matters in the teacher for the train items."""

        def make(folder: Path) -> None:
            sequences = [example.ids.tolist() for example in self.data.train.examples[:CALIBRATION]]
            found = measure_importance(self.model, self.teacher.family, sequences)
            found.save(folder / results.IMPORTANCE)

        inputs = self.origin | {"sequences": CALIBRATION, "format": results.IMPORTANCE_FORMAT}
        work = self._forward_work("score", min(CALIBRATION, len(self.data.train)))
        folder = self.store.stage("score", inputs, make, work=work)
        return Importance.load(folder / results.IMPORTANCE)

    @cached_property
    def train_rows(self) -> list[Row]:
        """The train items with what the teacher said about each token."""
        return self._recorded(self.data.train.examples, PROMPT_WEIGHT).rows(drawn=True)

    @cached_property
    def _dev_rows(self) -> list[Row]:
        # not what is drawn: shapes are told apart by a divergence that is shown as such
        return self._recorded(self.data.dev.examples[:RANKING], 0.0).rows()

    def count_all(self) -> None:
        """Look up the stages that a second run has no need to read: they took time as well."""
        _ = self.importance, self.train_rows, self._dev_rows

    def _recorded(self, examples: Sequence[Example], prompt_weight: float) -> Record:
        """What the teacher said, read from disk when it is used.

        The stage grows: what a kill leaves of it is gone on from.
        """
        rows = answer_rows(examples, prompt_weight)
        wish = Wish(rows, self.source, self.teacher.shape.vocabulary)
        folder = self.store.grown("record", {"name": wish.name})

        def load() -> Any:
            self.store.journal.began("record", folder.name)
            return self.model

        found = record(folder, wish, load)
        work = None
        if found.written:
            work = self._forward_work("record", len(examples) * found.written // len(found.shards))
            self.store.journal.ended("record", folder.name, found.seconds)
            say(f"What the teacher says: {found.size}")
        else:
            self.store.journal.found("record", folder.name)
        self.store.spent("record", folder, found.seconds, work=work, now=found.now)
        return found

    def _forward_work(self, kind: str, items: int) -> Work:
        return workload.read_work(kind, items, self.teacher.parameters, self.sizes)

    def ranked(self, level: float) -> list[RankedShape]:
        """The grid's shapes at one size, the nearest to the teacher first."""

        def make(folder: Path) -> None:
            results.save_ranking(
                folder,
                rank_shapes(
                    self.model, self.teacher.family, self.importance,
                    lambda student: divergence(student, self._dev_rows), level,
                    heads=self.effort.heads,
                ),
            )  # fmt: skip

        inputs = self.origin | {"level": level, "heads": self.effort.heads, "dev": RANKING}
        shapes = workload.shapes_at(self.teacher, level, self.effort)
        work = workload.ranking_work(len(shapes), level, self.sizes)
        folder = self.store.stage("rank", inputs, make, f"{level:g}", work=work)
        return results.load_ranking(folder)

    @cached_property
    def read_share(self) -> Callable[[Any], Reading]:
        """Reads the share of the teacher's dev score off a student in training."""
        return share_reader(self.data.dev, self.teacher_dev.scores, self.scorer, self.tokenizer)

    # ------------------------------------------------------------------ students

    def parity_prompts(self) -> list[list[int]] | None:
        """What a student's files are proven on; None where plain text has no prompts of its own."""
        if not self.scorer.needs_generation:
            return None
        different = dict.fromkeys(map(tuple, self.data.dev.prompts))
        return [list(prompt) for prompt in different]

    def rounded(self, folder: Path, bits: int) -> Any:
        """A checkpoint's weights in torch, as its GGUF file at `bits` holds them."""
        return rounded(open_checkpoint(folder).model(), bits, self.teacher.gguf_map)

    def hash(self, path: Path) -> str:
        """A file's hash, taken once a run."""
        if path not in self._hashes:
            self._hashes[path] = sha256_of(path)
        return self._hashes[path]
