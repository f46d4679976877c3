"""Models that classify: texts in, one of several labels out, in ONNX Runtime or in torch.

At 16 bits a model is its checkpoint itself, which torch runs in fp32: which engine is the faster
one is measured with every candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flyweight.card import Parity
from flyweight.checkpoint import Checkpoint
from flyweight.distill.labels import LabelDistillation, ask_labels, label_rows, with_said
from flyweight.distill.losses import Objective
from flyweight.distill.resume import Reading
from flyweight.distill.trainer import Row
from flyweight.errors import OptionError
from flyweight.folder import ONNX_NAMES, WEIGHTS
from flyweight.make.data import Example, Split
from flyweight.make.form import Answers, Cost, Form
from flyweight.make.probe import sample_of, share_of
from flyweight.make.rank import label_divergence
from flyweight.make.workload import RANKING, read_work
from flyweight.runtime.classify import extra
from flyweight.runtime.measure_classifier import TIMED, measure_classifier
from flyweight.runtime.onnx_file import quantise_onnx, write_onnx
from flyweight.runtime.pack import pack_classifier
from flyweight.tasks.items import Item
from flyweight.tasks.labels import Labelled, label_items
from flyweight.tasks.score import Scorer

if TYPE_CHECKING:
    from flyweight.make.job import Job

SAID = "said.npy"  # float32 [n, C]: log-probabilities of the labels

CALMER = 0.5  # of the rate for what writes: measured with BERT, whose norms come after its blocks


class Classifies(Form):
    """A checkpoint that gives texts labels."""

    files = MappingProxyType({32: ONNX_NAMES[32], 16: WEIGHTS, 8: ONNX_NAMES[8]})
    formats = tuple(f"onnx-{bits}" for bits in ONNX_NAMES)
    engines = ("ONNX Runtime",)
    packages = ("onnx", "onnxruntime", "onnxscript")
    chooses = True

    def __init__(self, source: Checkpoint) -> None:
        super().__init__(source)
        self.names = sorted(source.labels, key=source.labels.__getitem__)  # by number

    def check(self, scorer: Scorer) -> None:
        if not scorer.needs_generation:
            raise OptionError(
                f"--score {scorer.name}: {self.source.name} gives texts labels. Use accuracy, "
                "macro-f1, exact, or module:function."
            )
        with extra():
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401

    def examples(self, items: Sequence[Item], name: str, scorer: Scorer) -> tuple[Example, ...]:
        source = self.source
        return label_items(self.tokenizer, items, name, source.context, source.labels)

    def answer_limit(self, splits: Iterable[Split], scorer: Scorer) -> int:
        return 0

    def pack(
        self,
        folder: Path,
        prompts: Sequence[Sequence[int]] | None,
        texts: Sequence[Sequence[int]] = (),
    ) -> Parity:
        _, found = pack_classifier(folder, tuple(ONNX_NAMES), self.source.context, prompts)
        return Parity(
            prompts=found.prompts,
            equal=found.equal,
            near_ties=[],
            furthest=found.furthest / found.spread,
        )

    def write(self, bits: int, out: Path) -> None:
        if bits == 8:
            whole = out.with_name(ONNX_NAMES[32])
            write_onnx(self.source.path, whole)
            quantise_onnx(whole, out)
        else:
            write_onnx(self.source.path, out)

    def answers(
        self,
        file: Path,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        on_answer: Callable[[], object],
        timed: int = TIMED,
    ) -> Answers:
        in_torch = file.name == WEIGHTS
        model = file.parent if in_torch else file
        found = measure_classifier(model, prompts, on_answer=on_answer, timed=timed)
        return Answers(
            [self.names[label] for label in found.labels],
            0,
            Cost(
                "torch" if in_torch else "ONNX Runtime",
                found.latency_p50,
                found.latency_p95,
                found.peak_memory_bytes,
                found.threads,
                texts_per_second=found.texts_per_second,
                metered=found.metered,
            ),
        )

    def train_rows(self, job: Job) -> list[Row]:
        return with_said(*_recorded(job, "train", job.data.train.examples))

    def apart(self, job: Job) -> Callable[[Any], float]:
        rows, said = _recorded(job, "dev", job.data.dev.examples[:RANKING])
        return lambda student: label_divergence(student, rows, said)

    def objective(self, job: Job, kl: float) -> Objective:
        return LabelDistillation(kl)

    def learning_rate(self, hidden: int) -> float:
        return CALMER * super().learning_rate(hidden)

    def reader(self, job: Job) -> Callable[[Any], Reading]:
        split = job.data.dev
        places = sample_of(split)
        rows = label_rows([cast(Labelled, split.examples[place]) for place in places])
        wanted = [split.answers[place] for place in places]

        right = np.array([row["label"] for row in rows])

        def read(model: Any) -> tuple[float, float]:
            logs = ask_labels(model, rows, title="")  # [n, C]
            said = [self.names[number] for number in logs.argmax(1)]
            nats = -logs[np.arange(len(rows)), right].mean()
            return float(job.scorer.scores(said, wanted).mean()), float(nats)

        return share_of(job.teacher_dev, split, job.scorer, read)


def _recorded(job: Job, split: str, examples: Sequence[Any]) -> tuple[list[Row], np.ndarray]:
    """Examples of a split as training rows, and what the teacher says of each."""
    rows = label_rows(examples)

    def make(folder: Path) -> None:
        np.save(folder / SAID, ask_labels(job.model, rows))

    inputs = job.origin | {"split": split, "items": len(examples)}
    work = read_work("record", len(examples), job.base.parameters, job.sizes)
    folder = job.store.stage("record", inputs, make, split, work=work)
    return rows, np.load(folder / SAID)


__all__ = ["Classifies"]
