"""Models that write: prompts in, text out, as GGUF files in llama.cpp."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from flyweight.card import Parity
from flyweight.checkpoint import open_checkpoint
from flyweight.distill.cache import Record, record
from flyweight.distill.losses import Distillation, Objective, cross_entropy
from flyweight.distill.resume import Reading
from flyweight.distill.teacher import PROMPT_WEIGHT, answer_rows
from flyweight.distill.trainer import Row, fast_math
from flyweight.distill.wish import Wish
from flyweight.folder import GGUF_NAMES
from flyweight.make.data import PLAIN_TOKENS, Example, Split
from flyweight.make.fitted import FITTING
from flyweight.make.form import Answers, Form
from flyweight.make.probe import BATCH, sample_of, share_of
from flyweight.make.rank import divergence
from flyweight.make.workload import CALIBRATION, RANKING, quantise_work, read_work
from flyweight.progress import say
from flyweight.runtime.forced import answer_bits, answer_logits
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.measure import TIMED, measure
from flyweight.runtime.pack import pack_checkpoint, quantise_checkpoint
from flyweight.runtime.rounding import rounded
from flyweight.tasks.encode import encode_items
from flyweight.tasks.items import Item
from flyweight.tasks.score import Scorer

if TYPE_CHECKING:
    from flyweight.make.job import Job


class Writes(Form):
    """A checkpoint that writes."""

    files = GGUF_NAMES
    formats = tuple(f"gguf-{bits}" for bits in GGUF_NAMES)
    engines = ("llama.cpp",)
    packages = ("gguf", "xllamacpp")
    spare = (5,)
    prompt_weight = PROMPT_WEIGHT

    def check(self, scorer: Scorer) -> None:
        self.source.gguf_map.metadata(self.source.config)

    def examples(self, items: Sequence[Item], name: str, scorer: Scorer) -> tuple[Example, ...]:
        plain = not scorer.needs_generation
        return encode_items(self.tokenizer, items, name, self.source.context, plain=plain)

    def answer_limit(self, splits: Iterable[Split], scorer: Scorer) -> int:
        if not scorer.needs_generation:
            return PLAIN_TOKENS
        return super().answer_limit(splits, scorer)

    def pack(
        self,
        folder: Path,
        prompts: Sequence[Sequence[int]] | None,
        texts: Sequence[Sequence[int]] = (),
    ) -> Parity:
        bits = tuple(self.files) if texts else (16,)
        gguf_map = self.source.gguf_map
        return pack_checkpoint(folder, bits, gguf_map, prompts, texts=texts).parity.card

    def texts(self, job: Job) -> list[list[int]]:
        return [each.ids.tolist() for each in job.data_of(self).train.examples[:CALIBRATION]]

    def quantised(self, job: Job) -> Path:
        packed = job.packed(self)

        def make(folder: Path) -> None:
            quantise_checkpoint(packed, folder, self.source.gguf_map, self.texts(job))

        work = quantise_work(self.source.parameters, job.sizes)
        return job.store.stage("quantise", job.origin_of(self) | FITTING, make, work=work)

    def write(self, bits: int, out: Path) -> None:
        write_gguf(self.source.path, out, bits, self.source.gguf_map)

    def answers(
        self,
        file: Path,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        on_answer: Callable[[], object],
        timed: int = TIMED,
    ) -> Answers:
        found = measure(file, prompts, max_tokens, on_answer=on_answer, timed=timed)
        return Answers.written(found, "llama.cpp", self.tokenizer)

    def rounded(self, folder: Path, file: Path) -> Callable[[], Any]:
        return lambda: rounded(open_checkpoint(folder).model(), file, self.source.gguf_map)

    def train_rows(self, job: Job) -> list[Row]:
        return _recorded(job, job.data.train.examples, self.prompt_weight).rows(drawn=True)

    def apart(self, job: Job) -> Callable[[Any], float]:
        # not what is drawn: shapes are told apart by a divergence that is shown as such
        rows = _recorded(job, job.data.dev.examples[:RANKING], 0.0).rows()
        return lambda student: divergence(student, rows)

    def objective(self, job: Job, kl: float) -> Objective:
        return Distillation(kl) if kl else cross_entropy

    def reader(self, job: Job) -> Callable[[Any], Reading]:
        split, teacher, scorer = job.data.dev, job.teacher_dev, job.scorer
        if scorer.needs_generation:
            read = _score_reader(split, scorer, self.tokenizer)
            return share_of(teacher, split, scorer, read)
        return _bits_reader(split, teacher.scores)


def _recorded(job: Job, examples: Sequence[Any], prompt_weight: float) -> Record:
    """What the teacher said, read from disk when it is used.

    The stage grows: what a kill leaves of it is gone on from.
    """
    rows = answer_rows(examples, prompt_weight)
    wish = Wish(rows, job.source, job.base.shape.vocabulary)
    folder = job.store.grown("record", {"name": wish.name})

    def load() -> Any:
        job.store.journal.began("record", folder.name)
        return job.model

    found = record(folder, wish, load)
    work = None
    if found.written:
        items = len(examples) * found.written // len(found.shards)
        work = read_work("record", items, job.base.parameters, job.sizes)
        job.store.journal.ended("record", folder.name, found.seconds)
        say(f"What the teacher says: {found.size}")
    else:
        job.store.journal.found("record", folder.name)
    job.store.spent("record", folder, found.seconds, work=work, now=found.now)
    return found


def _score_reader(
    split: Split, scorer: Scorer, tokenizer: Any
) -> Callable[[Any], tuple[float, float]]:
    """Mean score and nats a token on a sample of the split, teacher-forced."""
    places = sample_of(split)
    pairs = [split.pairs[place] for place in places]
    wanted = [split.answers[place] for place in places]

    tokens = sum(len(answer) for _, answer in pairs)

    def read(model: Any) -> tuple[float, float]:
        said, nats = list[str](wanted), 0.0
        right = np.zeros(len(pairs))
        with fast_math(next(model.parameters())):
            for place, logits, ids in answer_logits(model, pairs, BATCH, title=""):
                chosen = logits.argmax(-1)
                nats += float(F.cross_entropy(logits, ids, reduction="sum"))
                if scorer.teacher_forced:
                    right[place] = float(torch.equal(chosen, ids))
                else:
                    said[place] = tokenizer.decode(chosen, skip_special_tokens=True)
        scores = right if scorer.teacher_forced else scorer.scores(said, wanted)
        return float(scores.mean()), nats / tokens

    return read


def _bits_reader(split: Split, teacher_scores: np.ndarray) -> Callable[[Any], Reading]:
    """Bits a byte on a sample of the split, and the share of the teacher's compression."""
    places = sample_of(split)
    pairs = [split.pairs[place] for place in places]
    bytes_of = split.answer_bytes
    total = bytes_of[places].sum()
    teacher = teacher_scores[places].sum() * bytes_of.mean() / total
    tokens = sum(len(answer) for _, answer in pairs)

    @torch.inference_mode()
    def read(model: Any) -> Reading:
        needed = float(answer_bits(model, pairs, title="").sum())
        bits, nats = needed / total, needed * math.log(2) / tokens
        return {"score": bits, "share": float(teacher / bits), "nats": nats}

    return read


__all__ = ["Writes"]
