"""How big a job is, and how much each of its stages has to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flyweight.checkpoint import Checkpoint
from flyweight.make.bench import LIKELIHOOD_PROMPTS
from flyweight.make.data import FREE_TOKENS, PLAIN_TOKENS
from flyweight.make.effort import BATCH, EFFORTS, Effort
from flyweight.make.options import Options
from flyweight.make.probe import FRACTIONS, SAMPLE
from flyweight.make.rates import ONNX, Work
from flyweight.runtime.pack import NEUTRAL, PARITY_PROMPTS, PARITY_TOKENS
from flyweight.shrink.mend import TOKENS
from flyweight.shrink.shapes import SLACK, Candidate, grid
from flyweight.tasks.encode import answer_ids, prompt_ids
from flyweight.tasks.items import Item, Task
from flyweight.tasks.score import Scorer

if TYPE_CHECKING:
    from flyweight.make.form import Form

LOOKED_AT = 200  # items of a split whose length is measured
CALIBRATION = 256  # train items that tell importance
RANKING = 128  # dev items that rank the grid
MENDED = 1024  # train items that weights are mended by, at most
NEUTRAL_TOKENS = 20  # of a neutral prompt, roughly
WORKSPACE = 16  # numbers a token and a hidden channel that a layer keeps for the backward pass


@dataclass(frozen=True)
class Sizes:
    """How big a job is: items by split, tokens of a prompt and an answer (means), the networks."""

    items: dict[str, int]
    prompt: float
    answer: float
    longest: int  # tokens of the longest item
    unanswered: int
    teacher: int
    levels: tuple[int, ...]  # parameters of the contenders, one entry each, the smallest first
    shapes: tuple[int, ...]  # that are ranked, level by level
    kept: float  # numbers a token that the biggest contender keeps for the backward pass
    vocabulary: int  # what a model chooses among: tokens, or labels
    steps: int
    generates: bool
    classifies: bool
    forced: bool  # a bit width can be checked without answering
    score: str
    bar: float
    pictures: int = 0  # bytes that they take on disk, cut
    trimmed: int = 0  # parameters of the teacher with the task's tokens alone; 0: it stays whole
    mapped: bool = False  # the teacher stays in its files

    @property
    def tokens(self) -> float:
        """Mean tokens of an item."""
        return self.prompt + self.answer

    @property
    def base(self) -> int:
        """Parameters of what students are cut from."""
        return self.trimmed or self.teacher


def effort_of(options: Options, form: Form, base: Checkpoint) -> Effort:
    """The effort that is asked for, without the levels that the budgets leave no shape of.

    At least the smallest stays. `form` says how small files get, `base` what is cut.
    """
    effort = EFFORTS[options.effort]
    share = options.budgets.most_parameters(min(form.files)) / base.parameters
    within = tuple(level for level in effort.levels if level * (1 - SLACK) <= share)
    return replace(effort, levels=within or effort.levels[:1])


def sizes_of(
    task: Task, form: Form, base: Checkpoint, options: Options, steps: int, scoring: Scorer
) -> Sizes:
    """What the quote needs to know; looks at a few hundred items.

    `form` is the teacher's, `base` what students are cut from.
    """
    teacher, classifies = form.source, not form.source.family.causal
    effort, generates = effort_of(options, form, base), scoring.needs_generation
    looked = [*task.train[:LOOKED_AT], *task.dev[:LOOKED_AT]]

    def measure(item: Item) -> tuple[int, int]:
        return _lengths(form.tokenizer, item, generates, classifies)

    prompt, answer = np.array([measure(item) for item in looked], dtype=float).mean(axis=0)
    views = form.views(task)
    longest = _longest(measure, task.train) + views.tokens
    grids = [shapes_at(base, level, effort) for level in effort.levels]
    levels: list[int] = []
    for level, found in zip(effort.levels, grids, strict=True):
        levels += [round(level * base.parameters)] * min(effort.width, len(found))
    parts = task.splits
    unanswered = sum(item.answer is None for items in parts.values() for item in items)
    return Sizes(
        items={name: len(items) for name, items in parts.items()},
        prompt=float(prompt) + views.work,
        answer=float(answer),
        longest=longest,
        unanswered=unanswered if generates else 0,
        teacher=teacher.parameters,
        levels=tuple(levels) or (base.parameters // 4,),
        shapes=tuple(map(len, grids)),
        kept=_kept(next((found for found in reversed(grids) if found), []), longest),
        vocabulary=len(teacher.labels) if classifies else base.shape.vocabulary,
        steps=steps,
        generates=generates,
        classifies=classifies,
        forced=scoring.teacher_forced and not classifies,
        score=options.score,
        bar=options.bar,
        pictures=views.bytes,
        trimmed=base.parameters if base.parameters < teacher.parameters else 0,
        mapped=teacher.mapped,
    )


def teacher_work(parameters: int, sizes: Sizes) -> Work:
    """Packing the teacher, which is proven on neutral prompts."""
    if sizes.classifies:
        return _export("teacher", parameters)
    return _proof("teacher", parameters, len(NEUTRAL), NEUTRAL_TOKENS, PARITY_TOKENS)


def trim_work(sizes: Sizes) -> Work:
    """Writing the teacher anew with the task's tokens."""
    return Work("vocabulary", 0.0, 2.0 * sizes.trimmed)


def quantise_work(parameters: int, sizes: Sizes) -> Work:
    """Reading what feeds a network's matrices, for its files of fewer bits."""
    return read_work("quantise", min(CALIBRATION, sizes.items["train"]), parameters, sizes)


def pack_work(kind: str, parameters: int, sizes: Sizes) -> Work:
    """Writing a student's files and proving them, on prompts of dev where it answers any."""
    if sizes.classifies:
        return _export(kind, parameters)
    proof, read = teacher_work(parameters, sizes), quantise_work(parameters, sizes)
    if sizes.generates:
        prompts = min(PARITY_PROMPTS, sizes.items["dev"])
        written = min(PARITY_TOKENS, sizes.answer)
        proof = _proof(kind, parameters, prompts, sizes.prompt, written)
    return Work(kind, proof.tokens + read.tokens, proof.flops + read.flops)


def _proof(kind: str, parameters: int, prompts: int, read: float, written: float) -> Work:
    return Work(kind, prompts * written, 2.0 * parameters * prompts * (read + 4 * written))


def _export(kind: str, parameters: int) -> Work:
    """Tracing an encoder takes a time of its own, whatever its size."""
    return Work(kind + ONNX, 0.0, 2.0 * parameters * PARITY_PROMPTS)


def forward(parameters: int, items: float, sizes: Sizes) -> float:
    """Operations of reading so many items."""
    return 2.0 * parameters * items * sizes.tokens


def read_work(kind: str, items: int, parameters: int, sizes: Sizes) -> Work:
    """Reading so many items in torch."""
    return Work(kind, items * sizes.tokens, forward(parameters, items, sizes))


def shapes_at(base: Checkpoint, level: float, effort: Effort) -> list[Candidate]:
    """The shapes of a level, all of which are ranked."""
    return grid(base.family, base.shape, base.config, level, heads=effort.heads)


def ranking_work(shapes: int, level: float, sizes: Sizes) -> Work:
    """Cutting and reading so many shapes of a level."""
    items = shapes * min(RANKING, sizes.items["dev"])
    return read_work("rank", items, round(level * sizes.base), sizes)


def measure_work(kind: str, items: int, sizes: Sizes, parameters: int) -> Work:
    """Answering so many items in the engine; for likelihood some, and reading all in torch.

    A token of a prompt takes next to nothing beside its operations.
    """
    if sizes.classifies:
        return Work(kind + ONNX, items * sizes.tokens, forward(parameters, items, sizes))
    asked = items if sizes.generates else min(items, LIKELIHOOD_PROMPTS)
    written = sizes.answer if sizes.generates else PLAIN_TOKENS
    tokens, flops = asked * written, 2.0 * parameters * asked * (sizes.prompt + 4 * written)
    if not sizes.generates:
        tokens, flops = tokens + items * sizes.tokens, flops + forward(parameters, items, sizes)
    return Work(kind, tokens, flops)


def mend_work(parameters: int, sizes: Sizes) -> Work:
    """Fitting what a cut leaves: two passes of the teacher over some items, six of the student."""
    items = min(sizes.items["train"], MENDED, TOKENS / sizes.tokens)
    teacher, student = (forward(each, items, sizes) for each in (sizes.base, parameters))
    return Work("mend", items * sizes.tokens, 2 * teacher + 6 * student)


def train_work(kind: str, steps: float, parameters: int, sizes: Sizes) -> Work:
    """So many steps, and the readings on the way."""
    read = len(FRACTIONS) * steps / max(1, sizes.steps) * min(SAMPLE, sizes.items["dev"])
    tokens = steps * BATCH * sizes.tokens
    return Work(kind, tokens, 6.0 * parameters * tokens + forward(parameters, read, sizes))


def _kept(candidates: Sequence[Candidate], tokens: float) -> float:
    """Numbers a token, layers times what one keeps; of the middle one among candidates."""
    kept = [
        made.shape.layers
        * (WORKSPACE * made.shape.hidden + 5 * made.shape.mlp + 4 * made.shape.heads * tokens)
        for made in candidates
    ]
    return float(np.median(kept)) if kept else 0.0


def _longest(measure: Callable[[Item], tuple[int, int]], items: Sequence[Item]) -> int:
    """Tokens that a batch of the longest items is padded to; they are found by their characters."""
    by_size = sorted(items, key=lambda item: len(str(item.messages)) + len(item.answer or ""))
    return max(sum(measure(item)) for item in by_size[-BATCH:])


def _lengths(tokenizer: Any, item: Item, generates: bool, classifies: bool) -> tuple[int, int]:
    """Tokens of an item's prompt and answer; of an answer that the teacher writes, roughly."""
    prompt = len(prompt_ids(tokenizer, item.messages))
    if classifies:
        return prompt, 0
    if item.answer is not None:
        return prompt, len(answer_ids(tokenizer, item.answer))
    return prompt, FREE_TOKENS // 4 if generates else 0
