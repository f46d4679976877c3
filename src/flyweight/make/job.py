"""One run of `make`: what it works on, and the stages that every search needs.

Whatever takes longer than a second is a stage of the store, so that it is found done by the next
run that asks the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flyweight.anatomy import Shape
from flyweight.checkpoint import Checkpoint, round_weights
from flyweight.distill.resume import Reading
from flyweight.distill.trainer import Row
from flyweight.folder import sha256_of
from flyweight.make import results, workload
from flyweight.make.asking import teacher_answers
from flyweight.make.bench import LIKELIHOOD_PROMPTS, Bench, Result
from flyweight.make.budget import Figures
from flyweight.make.data import Data, answered, prepare
from flyweight.make.device import find_device
from flyweight.make.effort import Effort
from flyweight.make.fitted import density
from flyweight.make.foreteller import Foreteller
from flyweight.make.form import Form
from flyweight.make.options import Options
from flyweight.make.rank import RankedShape, rank_shapes
from flyweight.make.store import ENGINES, Store
from flyweight.make.students import compare
from flyweight.make.trim import trimmed
from flyweight.make.workload import CALIBRATION, RANKING, Sizes
from flyweight.progress import say
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.importance import Importance
from flyweight.tasks.items import Item, Task
from flyweight.tasks.score import Scorer
from flyweight.tasks.statistics import Ratio


class Job:
    """A teacher, a task, wishes, and the store of what was found out about them.

    `big` is the teacher as it is, `form` what students are cut from: the teacher with the tokens
    of the task.
    """

    def __init__(
        self, options: Options, big: Form, task: Task, scorer: Scorer, sizes: Sizes, store: Store
    ) -> None:
        self.options, self.big, self.task = options, big, task
        self.scorer, self.sizes, self.store = scorer, sizes, store
        self.steps_taken: dict[Path, int] = {}  # by training
        self._hashes: dict[Path, str] = {}
        self._data: dict[Form, Data] = {}
        self._sources: dict[Form, dict[str, Any]] = {}
        torch.manual_seed(options.seed)
        torch.set_num_threads(options.threads)

    @property
    def teacher(self) -> Checkpoint:
        return self.big.source

    @property
    def base(self) -> Checkpoint:
        return self.form.source

    @property
    def effort(self) -> Effort:
        return workload.effort_of(self.options, self.form, self.base)

    @property
    def steps(self) -> int:
        """The steps of a distillation that is not broken off."""
        return self.sizes.steps

    @property
    def source(self) -> dict[str, Any]:
        """What every result of `base` depends on, whatever the task."""
        return self.source_of(self.form)

    @property
    def origin(self) -> dict[str, Any]:
        """What every result of `base` on this task depends on."""
        return self.origin_of(self.form)

    def source_of(self, form: Form) -> dict[str, Any]:
        """What every result of a form's checkpoint depends on, whatever the task."""
        if form not in self._sources:  # hashes of gigabytes
            told: dict[str, Any] = {**form.source.identity(), "threads": self.options.threads}
            engines = {name: version(name) for name in form.packages if name not in ENGINES}
            if engines:  # else all are the store's own
                told["engines"] = engines
            self._sources[form] = told
        return self._sources[form]

    def origin_of(self, form: Form) -> dict[str, Any]:
        """What every result of a form's checkpoint on this task depends on."""
        scored = {"score": self.options.score, "scorer": self.scorer.source_sha256()}
        return self.asked_of(form) | scored

    def asked_of(self, form: Form) -> dict[str, Any]:
        """What a form's checkpoint says on this task depends on, however it is scored."""
        task = {"task": self.task.sha256, "prompts": self.prompting()}
        return self.source_of(form) | task | self._told

    @cached_property
    def _told(self) -> dict[str, Any]:
        return self.big.told([item for split in self.task.splits.values() for item in split])

    def prompting(self) -> list[str]:
        """What, beside its vocabulary, decides the ids that the tokenizer gives a chat."""
        names = (
            "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
            "generation_config.json",
        )  # fmt: skip
        files = [self.teacher.path / name for name in names]
        return [sha256_of(file) for file in files if file.exists()]

    # ------------------------------------------------------------------ the teacher

    @cached_property
    def teacher_model(self) -> Any:
        """The teacher in torch, fp32, rounded as its 16-bit file is; loaded when first needed."""
        return _rounded_model(self.teacher)

    @cached_property
    def teacher_folder(self) -> Path:
        """The teacher's checkpoint with its files for the runtime."""
        return self.packed(self.big)

    def packed(self, form: Form) -> Path:
        """A form's checkpoint with its files that hang on no task, proven; see fitted.py."""

        def make(folder: Path) -> None:
            model = self.teacher_model if form is self.big else self.model
            form.save(model, folder)
            prompts = None if form is self.big else self._parity_prompts()
            results.save_parity(folder, form.pack(folder, prompts))

        work = workload.teacher_work(form.source.parameters, self.sizes)
        inputs = self.source_of(form) | {"format": results.PACK_FORMAT}
        return self.store.stage("teacher", inputs, make, work=work)

    @cached_property
    def items(self) -> dict[str, tuple[Item, ...]]:
        """The task's splits, every item with an answer."""
        if not self.scorer.needs_generation:
            return self.task.splits
        return answered(self.task, self.big, self.scorer, partial(teacher_answers, self))

    # ------------------------------------------------------------------ what students are cut from

    @cached_property
    def form(self) -> Form:
        """The teacher with the tokens of the task, or as it is where that gains little or fails."""
        return trimmed(self) or self.big

    @cached_property
    def model(self) -> Any:
        """`base` in torch, fp32, rounded as a 16-bit file is; loaded when first needed."""
        return self.teacher_model if self.form is self.big else _rounded_model(self.base)

    @property
    def data(self) -> Data:
        """The task as students read it, every item with an answer."""
        return self.data_of(self.form)

    def data_of(self, form: Form) -> Data:
        """The task as a form reads it."""
        if form not in self._data:
            self._data[form] = prepare(self.items, self.task.name, form, self.scorer)
        return self._data[form]

    # ------------------------------------------------------------------ measuring

    def measured(
        self,
        kind: str,
        title: str,
        file: Path,
        split: str,
        parameters: int,
        model: Callable[[], Any] | None,
        *,
        form: Form | None = None,
    ) -> Result:
        """One file's scores and costs on a split, measured once; `model()` is it in torch.

        `form` is that of students where it is not given.
        """
        form = form or self.form
        data = self.data_of(form)
        part = data.splits[split]

        def make(folder: Path) -> None:
            weights = model() if model and not self.scorer.needs_generation else None
            bench = Bench(form, self.scorer, data.max_tokens)
            results.save_result(folder, bench.run(title, file, part, weights))

        inputs = self.origin_of(form) | {
            "file": self.hash(file), "split": split, "max_tokens": data.max_tokens,
            **results.measured_here(),
        }  # fmt: skip
        work = workload.measure_work(kind, len(part), self.sizes, parameters)
        return results.load_result(self.store.stage(kind, inputs, make, work=work))

    def measured_teacher(self, kind: str, split: str) -> Result:
        """The teacher itself on a split."""
        return self.measured(
            kind,
            f"teacher on {split}",
            self.teacher_folder / self.big.whole,
            split,
            self.teacher.parameters,
            lambda: self.teacher_model,
            form=self.big,
        )

    @cached_property
    def teacher_dev(self) -> Result:
        """The teacher on dev."""
        return self.measured_teacher("measure", "dev")

    def ratio(self, scores: np.ndarray) -> Ratio:
        """A student's dev scores against the teacher's."""
        lower = self.scorer.lower_is_better
        return compare(scores, self.teacher_dev.scores, self.data.dev, self.options, lower)

    # ------------------------------------------------------------------ what is cut, and for what

    @cached_property
    def importance(self) -> Importance:
        """What matters in the teacher for the train items."""

        def make(folder: Path) -> None:
            rows, feed = self.form.prompts(self, CALIBRATION), self.form.feed(self)
            found = measure_importance(self.model, self.base.family, rows, feed=feed)
            found.save(folder / results.IMPORTANCE)

        inputs = self.origin | {"sequences": CALIBRATION, "format": results.IMPORTANCE_FORMAT}
        items = min(CALIBRATION, len(self.data.train))
        work = workload.read_work("score", items, self.base.parameters, self.sizes)
        folder = self.store.stage("score", inputs, make, work=work)
        return Importance.load(folder / results.IMPORTANCE)

    @cached_property
    def train_rows(self) -> list[Row]:
        """The train items with what the teacher said of them."""
        return self.form.train_rows(self)

    @cached_property
    def apart(self) -> Callable[[Any], float]:
        """Tells how far a model in torch is from the teacher on some of dev, in nats."""
        return self.form.apart(self)

    def count_all(self) -> None:
        """Look up the stages that a second run has no need to read: they took time as well."""
        _ = self.importance, self.train_rows, self.apart

    def ranked(self, level: float) -> list[RankedShape]:
        """The grid's shapes at one size, the nearest to the teacher first."""

        def make(folder: Path) -> None:
            results.save_ranking(
                folder,
                rank_shapes(
                    self.model, self.base.family, self.importance, self.apart, level,
                    heads=self.effort.heads,
                ),
            )  # fmt: skip

        inputs = self.origin | {"level": level, "heads": self.effort.heads, "dev": RANKING}
        shapes = workload.shapes_at(self.base, level, self.effort)
        work = workload.ranking_work(len(shapes), level, self.sizes)
        folder = self.store.stage("rank", inputs, make, f"{level:g}", work=work)
        return results.load_ranking(folder)

    @cached_property
    def foreteller(self) -> Foreteller | None:
        """Tells what shapes will take on the device, where the search needs to know it."""
        if not self.options.on_device:
            return None
        device = find_device(self.options.device, self.base.family.causal)
        lengths = self.data.dev.lengths
        if not self.scorer.needs_generation:  # what is measured then: see Bench
            read = lengths[:LIKELIHOOD_PROMPTS, 0]
            lengths = np.stack([read, np.full_like(read, self.data.max_tokens)], axis=1)
        return Foreteller(device, self.form, lengths, density(self))

    def forecasts(self, shape: Shape) -> dict[int, Figures]:
        """What a shape is likely to take on the device, by bits; empty where it does not matter."""
        return self.foreteller.figures(shape) if self.foreteller else {}

    @cached_property
    def read_share(self) -> Callable[[Any], Reading]:
        """Reads the share of the teacher's dev score off a student in training."""
        return self.form.reader(self)

    # ------------------------------------------------------------------ students

    def pack(self, folder: Path, label: str) -> None:
        """Write a student's files for the runtime into its folder, proven."""
        say(f"Packing {label} at {', '.join(map(str, self.form.files))} bits")
        found = self.form.pack(folder, self._parity_prompts(), self.form.texts(self))
        results.save_parity(folder, found)

    def _parity_prompts(self) -> list[list[int]] | None:
        """What a student's files are proven on; None where plain text has no prompts of its own."""
        if not self.scorer.needs_generation:
            return None
        return self.data.dev.different_prompts

    def hash(self, path: Path) -> str:
        """A file's hash, taken once a run."""
        if path not in self._hashes:
            self._hashes[path] = sha256_of(path)
        return self._hashes[path]


def _rounded_model(source: Checkpoint) -> Any:
    model = source.frozen()
    round_weights(model)
    return model
