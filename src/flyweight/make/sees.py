"""Models with eyes: prompts about pictures in, text out, in the engine of torch.

The files are the checkpoint itself, which the engine runs in fp32, and one of 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from flyweight.anatomy.mllama import VISION
from flyweight.card import Parity
from flyweight.checkpoint import Checkpoint
from flyweight.distill.losses import Objective
from flyweight.distill.resume import Reading
from flyweight.distill.trainer import Row, collate
from flyweight.errors import OptionError
from flyweight.folder import EYES_NAMES, WEIGHTS, sha256_of
from flyweight.make.data import Example, Views
from flyweight.make.form import Answers, Form
from flyweight.make.probe import BATCH, sample_of, share_of
from flyweight.make.workload import RANKING
from flyweight.runtime.measure import TIMED
from flyweight.shrink.batches import Feed, Prompt
from flyweight.shrink.stream import copy_processor
from flyweight.tasks import encode
from flyweight.tasks.encode import encode_items
from flyweight.tasks.items import Item, Task
from flyweight.tasks.score import Scorer
from flyweight.vision.int8 import write_int8
from flyweight.vision.measure_eyes import measure_eyes
from flyweight.vision.objective import open_gates
from flyweight.vision.pixels import Cutter, Shelf
from flyweight.vision.prompts import format_of, with_picture
from flyweight.vision.proof import prove
from flyweight.vision.rows import pictures_of, shelve
from flyweight.vision.sights import Sights, seen_hidden
from flyweight.vision.sizes import new_encoder
from flyweight.vision.vision_folder import Opened, open_vision

if TYPE_CHECKING:
    from flyweight.make.job import Job

PICTURES = "pictures.u8"
WORDS = "What does it show?"  # where no prompts are told


class Shown(list[int]):
    """A prompt's token ids, and the picture that it is about."""

    def __init__(self, ids: Iterable[int], picture: Path) -> None:
        super().__init__(ids)
        self.picture = picture


@dataclass(frozen=True)
class Looking(encode.Example):
    """A tokenised item about a picture."""

    picture: Path

    @property
    def prompt(self) -> list[int]:
        return Shown(super().prompt, self.picture)


class Sees(Form):
    """A checkpoint with eyes."""

    files = MappingProxyType(EYES_NAMES)
    formats = ("int8",)
    engines = ("flyweight (torch, as Meta's code computes it)",)
    in_transformers = "transformers (lets a picture into earlier tokens)"
    packages = ("pillow",)

    def __init__(self, source: Checkpoint) -> None:
        super().__init__(source)
        self._sights: Sights | None = None

    @cached_property
    def _form(self) -> Any:
        return format_of(self.tokenizer, self.source.name)

    def check(self, scorer: Scorer) -> None:
        if not scorer.needs_generation:
            raise OptionError(
                f"--score {scorer.name}: {self.source.name} answers about pictures. Use a score of "
                "answers, such as exact."
            )
        _ = self._form  # a folder without a chat template is refused

    def examples(self, items: Sequence[Item], name: str, scorer: Scorer) -> tuple[Example, ...]:
        pictures_of(items, Path(name))  # each has one
        found = encode_items(self.tokenizer, items, name, self.source.context, prompt=self.prompt)
        return tuple(
            Looking(each.ids, each.prompt_length, item.picture)
            for each, item in zip(found, items, strict=True)
        )

    def prompt(self, item: Item) -> list[int]:
        return Shown(self._form.prompt(with_picture(item.messages)), item.picture)

    def begin(self, model: Any) -> None:
        new_encoder(model.model.vision_model)
        open_gates(model)  # which are drawn shut, and would open by a learning rate a step

    def save(self, model: Any, folder: Path) -> None:
        super().save(model, folder)
        copy_processor(self.source.path, folder)

    def pack(
        self,
        folder: Path,
        prompts: Sequence[Sequence[int]] | None,
        texts: Sequence[Sequence[int]] = (),
    ) -> Parity:
        if prompts is None:
            prompts = [self._form.prompt([{"role": "user", "content": WORDS}])]
        opened = open_vision(folder)
        found = prove(opened, [(ids, _picture(ids)) for ids in prompts])
        write_int8(opened.model, folder / EYES_NAMES[8])
        return found.card

    def write(self, bits: int, out: Path) -> None:
        if out.name == WEIGHTS:  # there are others: the checkpoint was opened
            raise OptionError(
                f"{self.source.name}: its weights are in several files. Save it in one, or take "
                "--bits 8."
            )
        model = self.source.model()
        for part in (model.config, model.generation_config, self.tokenizer):
            part.save_pretrained(out.parent)
        copy_processor(self.source.path, out.parent)
        write_int8(model, out)

    def answers(
        self,
        file: Path,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        on_answer: Callable[[], object],
        timed: int = TIMED,
    ) -> Answers:
        bits = 32 if file.name == WEIGHTS else 8
        asked = [(ids, _picture(ids)) for ids in prompts]
        found = measure_eyes(file.parent, bits, asked, max_tokens, timed=timed, on_answer=on_answer)
        return Answers.written(found, "torch", self.tokenizer)

    def told(self, items: Sequence[Item]) -> dict[str, Any]:
        names = sorted({item.picture for item in items})
        return {"pictures": [sha256_of(name) for name in names]}

    def views(self, task: Task) -> Views:
        source = self.source
        eyes = source.config.vision_config
        tensors = source.family.tensors(source.shape, source.config)
        encoder = sum(math.prod(sizes) for name, sizes in tensors if name.startswith(VISION))
        tokens = eyes.max_num_tiles * ((eyes.image_size // eyes.patch_size) ** 2 + 1)
        pictures = len({item.picture for split in task.splits.values() for item in split})
        cut = pictures * eyes.max_num_tiles * eyes.num_channels * eyes.image_size**2
        return Views(tokens, tokens * encoder / source.parameters, cut)

    def prompts(self, job: Job, count: int) -> Sequence[Prompt]:
        return self._seen(job).rows(job.items["train"][:count])

    def feed(self, job: Job) -> Feed | None:
        return self._seen(job).feed

    def train_rows(self, job: Job) -> list[Row]:
        return self._seen(job).rows(job.items["train"])

    def apart(self, job: Job) -> Callable[[Any], float]:
        return self._seen(job).apart(job.model, job.items["dev"][:RANKING])

    def objective(self, job: Job, kl: float) -> Objective:
        return self._seen(job).objective(kl, job.model)

    def reader(self, job: Job) -> Callable[[Any], Reading]:
        split, scorer, sights = job.data.dev, job.scorer, self._seen(job)
        places = sample_of(split)
        rows = [sights.rows([split.items[place]])[0] for place in places]
        wanted = [split.answers[place] for place in places]

        def read(model: Any) -> tuple[float, float]:
            said, right, nats, tokens = [], [], 0.0, 0
            for start in range(0, len(rows), BATCH):
                batch = {
                    name: each.to(model.device)
                    for name, each in collate(rows[start : start + BATCH]).items()
                }
                hidden = seen_hidden(model, batch, sights.shelf)  # [N, D]
                logits = model.get_output_embeddings()(hidden).float()  # [N, V]
                chosen = logits.argmax(-1)
                counted = batch["weights"][:, 1:] != 0
                ids = batch["input_ids"][:, 1:][counted]
                nats += float(F.cross_entropy(logits, ids, reduction="sum"))
                tokens += len(ids)
                sizes = counted.sum(1).tolist()
                for ours, theirs in zip(chosen.split(sizes), ids.split(sizes), strict=True):
                    right.append(float(torch.equal(ours, theirs)))
                    said.append(self.tokenizer.decode(ours, skip_special_tokens=True))
            scores = right if scorer.teacher_forced else scorer.scores(said, wanted)
            return float(np.mean(scores)), nats / tokens

        return share_of(job.teacher_dev, split, scorer, read)

    def _seen(self, job: Job) -> Sights:
        """The task's pictures, cut as a stage."""
        if self._sights is None:
            cutter, file = Cutter.of(self.source.path), Path(job.task.name)
            names = pictures_of([item for split in job.items.values() for item in split], file)

            def make(folder: Path) -> None:
                shelve(folder / PICTURES, cutter, names, file)

            told = job.origin | {"laid": "behind"}  # as pixels.py says
            shelf = Shelf(job.store.stage("pictures", told, make) / PICTURES, cutter)
            opened = Opened(self.source.path, job.model, self.tokenizer, cutter)
            self._sights = Sights(opened, shelf, names, file)
        return self._sights


def _picture(ids: Sequence[int]) -> Path | None:
    return ids.picture if isinstance(ids, Shown) else None


__all__ = ["Sees"]
