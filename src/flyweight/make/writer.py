"""The teacher as a writer, in the engine: drawn prompts and likeliest answers.

A teacher that was trained on answers alone cannot write the prompts that it understands. A copy of
it is taught the task's few prompts, just long enough to tell what they look like (`TAUGHT_EPOCHS`);
the answers remain the teacher's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from flyweight.checkpoint import Checkpoint, round_weights, save_checkpoint
from flyweight.folder import GGUF_NAMES
from flyweight.make.drawing import Draw, Drawer
from flyweight.make.store import Store
from flyweight.progress import say
from flyweight.runtime.llama import Generation, LlamaEngine
from flyweight.runtime.measure import STREAMS
from flyweight.runtime.pack import pack_checkpoint
from flyweight.runtime.threads import SMALL_FILE

TEACHABLE = 200e6  # parameters: beyond, teaching a copy takes too much
TAUGHT_EPOCHS, TAUGHT_BATCH = 12, 16
MOST_STEPS = 400
RATE = 0.25  # over the hidden size


@dataclass(frozen=True)
class Answer:
    """What the teacher says to a prompt; `sure`: mean log-probability a token, its end included."""

    text: str
    sure: float
    ended: bool


class Writer:
    """A teacher's files and engines, made and opened when first needed."""

    def __init__(self, source: Checkpoint, drawer: Drawer, store: Store, seed: int) -> None:
        self.source, self.drawer, self.store, self.seed = source, drawer, store, seed
        self._engines: dict[Path, LlamaEngine] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    @property
    def teachable(self) -> bool:
        """Whether a copy of the teacher can be taught here."""
        return self.source.parameters <= TEACHABLE

    def answers(
        self,
        prompts: Sequence[list[int]],
        most: int,
        on_done: Callable[[], object] = lambda: None,
    ) -> list[Answer]:
        """The likeliest answers to prompts of token ids."""
        said = self._generate(self._teacher(), prompts, most, (), top=1, on_done=on_done)
        return [Answer(each.text, _sure(each), each.stop_id is not None) for each in said]

    def prompts(
        self, way: str, draws: Sequence[Draw], seeds: Sequence[int], temperature: float, most: int
    ) -> list[str | None]:
        """The text of the last message that each draw gives; None where it did not end."""
        gguf = self._taught() if way == "taught" else self._teacher()
        room = self.source.context - most
        fitting = [place for place, draw in enumerate(draws) if len(draw.ids) <= room]
        said = self._generate(
            gguf, [draws[place].ids for place in fitting], most,
            {i for draw in draws for i in draw.stop_ids},
            temperature=temperature, seeds=[seeds[place] for place in fitting],
        )  # fmt: skip
        texts: list[str | None] = [None] * len(draws)
        for place, each in zip(fitting, said, strict=True):
            texts[place] = draws[place].read(each.text, each.stop_id is not None)
        return texts

    def _generate(
        self,
        gguf: Path,
        prompts: Sequence[list[int]],
        most: int,
        stop_ids: Collection[int],
        **how: Any,
    ) -> list[Generation]:
        if not prompts:
            return []
        engine = self._engine(gguf, max(map(len, prompts)) + most)
        return engine.generate_many(prompts, most, stop_ids=stop_ids, **how)

    def _engine(self, gguf: Path, context: int) -> LlamaEngine:
        """The file, opened with room for so many tokens; one stream where it is small.

        Several gain little there, and what is drawn in one stream can be drawn again.
        """
        known = self._engines.get(gguf)
        if known is None or known.context < context:
            if known is not None:
                known.close()
            streams = 1 if gguf.stat().st_size < SMALL_FILE else STREAMS
            roomy = min(self.source.context, max(512, 2 * context))
            self._engines[gguf] = LlamaEngine(gguf, context=max(context, roomy), streams=streams)
        return self._engines[gguf]

    # ------------------------------------------------------------------ files

    def _teacher(self) -> Path:
        """The teacher's GGUF at 16 bits, proven."""

        def make(folder: Path) -> None:
            say("Packing the teacher at 16 bits")
            self._pack(self.source.frozen(), folder)

        return self.store.stage("packed", self.source.identity(), make) / GGUF_NAMES[16]

    def _taught(self) -> Path:
        """A copy of the teacher that was taught to write the task's prompts."""

        def make(folder: Path) -> None:
            from flyweight.distill.losses import cross_entropy
            from flyweight.distill.trainer import Schedule, train

            model, rows = self.source.model(), self._rows()
            steps = max(1, min(MOST_STEPS, len(rows) * TAUGHT_EPOCHS // TAUGHT_BATCH))
            rate = RATE / self.source.shape.hidden
            schedule = Schedule(steps, TAUGHT_BATCH, rate, seed=self.seed)
            train(model, rows, cross_entropy, schedule, "Teaching it the prompts")
            self._pack(model, folder)

        texts = [[item.line, item.last_text] for item in self.drawer.seeds]
        inputs = self.source.identity() | {"texts": texts, "seed": self.seed}
        return self.store.stage("taught", inputs, make) / GGUF_NAMES[16]

    def _pack(self, model: Any, folder: Path) -> None:
        round_weights(model)
        save_checkpoint(model, self.drawer.tokenizer, folder)
        pack_checkpoint(folder, (16,), self.source.gguf_map)

    def _rows(self) -> list[dict[str, Any]]:
        """The task's prompts as training rows: their last message's text and its end count."""
        rows = []
        for item in self.drawer.seeds:
            before, after = self.drawer.frame(item)
            head = self.drawer.ids(before)
            body = self.drawer.tokenizer(item.last_text, add_special_tokens=False)["input_ids"]
            end = self.drawer.tokenizer.eos_token_id
            ends = list(self.drawer.stop_ids(after)) or ([] if end is None else [end])
            ids = np.array([*head, *body, *ends][: self.source.context], dtype=np.int32)
            weights = np.ones(len(ids), dtype=np.float32)
            weights[: max(1, len(head))] = 0.0
            rows.append({"input_ids": ids, "weights": weights})
        return rows


def _sure(said: Generation) -> float:
    """The mean log-probability of the tokens that greedy decoding wrote."""
    best = [choices[0][1] for choices in said.top if choices]
    return float(np.mean(best)) if best else float("-inf")
