"""What a model is for: to write answers, to give texts labels, or to answer about pictures.

All else of `make` is the same.

A form is a checkpoint with all that depends on that: how it is asked, packed and measured, and what
a student of it learns from. Three there are, in writes.py, classifies.py and sees.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flyweight.card import Parity
from flyweight.checkpoint import Checkpoint, save_checkpoint
from flyweight.distill.losses import Objective
from flyweight.distill.resume import Reading
from flyweight.distill.trainer import Row
from flyweight.make.data import SPARE_TOKENS, Example, Split, Views
from flyweight.make.effort import learning_rate
from flyweight.runtime.measure import TIMED, Measurement
from flyweight.shrink.batches import Feed, Prompt
from flyweight.sticker_card import Metered
from flyweight.tasks.encode import prompt_ids
from flyweight.tasks.items import Item, Task
from flyweight.tasks.score import Scorer

if TYPE_CHECKING:
    from flyweight.make.job import Job


@dataclass(frozen=True)
class Cost:
    """What answers took in an engine, measured: seconds an answer, bytes of memory, rates.

    What writes has tokens a second (of the answer, of the prompt) in one stream, what classifies
    texts a second in batches; the others are None. `metered` is what an answer took in energy.
    """

    engine: str
    latency_p50: float
    latency_p95: float
    peak_memory_bytes: int
    threads: int
    tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    texts_per_second: float | None = None
    metered: Metered | None = None


@dataclass(frozen=True)
class Answers:
    """What a file said to each prompt, how many answers were cut off, and what it took."""

    texts: list[str]
    unfinished: int
    cost: Cost

    @classmethod
    def written(cls, found: Measurement, engine: str, tokenizer: Any) -> Answers:
        """What an engine wrote, as text."""
        cost = Cost(
            engine,
            found.latency_p50,
            found.latency_p95,
            found.peak_memory_bytes,
            found.threads,
            tokens_per_second=found.decode_tokens_per_second,
            prompt_tokens_per_second=found.prompt_tokens_per_second,
            metered=found.metered,
        )
        texts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in found.answers]
        return cls(texts, sum(stop is None for stop in found.stop_ids), cost)


class Form(ABC):
    """A checkpoint as one that writes, that classifies, or that sees."""

    files: ClassVar[Mapping[int, str]]  # of a model, by the bits of its weights, the most first
    formats: ClassVar[tuple[str, ...]]  # as the card names them
    engines: ClassVar[tuple[str, ...]]
    packages: ClassVar[tuple[str, ...]]  # that decide what a file says
    spare: ClassVar[tuple[int, ...]] = ()  # bits that are tried where the next fewer fall short
    in_transformers = "transformers"  # as the card tells that it runs there
    chooses = False  # its answers are labels, by what it is
    prompt_weight = 0.0  # of a prompt's tokens in training, beside 1 of an answer's

    def __init__(self, source: Checkpoint) -> None:
        self.source = source
        self.tokenizer: Any = source.tokenizer()

    @property
    def whole(self) -> str:
        """The file that says what the checkpoint says."""
        return next(iter(self.files.values()))

    @abstractmethod
    def check(self, scorer: Scorer) -> None:
        """FlyweightError for what would only fail after hours."""

    @abstractmethod
    def examples(self, items: Sequence[Item], name: str, scorer: Scorer) -> tuple[Example, ...]:
        """The items tokenised; TaskError where one does not fit. `name` is the task's."""

    def prompt(self, item: Item) -> list[int]:
        """The token ids that it is given of an item, before it answers."""
        return prompt_ids(self.tokenizer, item.messages)

    def answer_limit(self, splits: Iterable[Split], scorer: Scorer) -> int:
        """Where an answer is cut off, in tokens: a little beyond the longest that is wanted."""
        return SPARE_TOKENS + max(len(answer) for split in splits for _, answer in split.pairs)

    def begin(self, model: Any) -> None:  # noqa: B027 - most are as they are drawn
        """Make a network that was just drawn ready to learn from nothing."""

    def save(self, model: Any, folder: Path) -> None:
        """Write a network of its kind as a checkpoint in bf16."""
        save_checkpoint(model, self.tokenizer, folder)

    @abstractmethod
    def pack(
        self,
        folder: Path,
        prompts: Sequence[Sequence[int]] | None,
        texts: Sequence[Sequence[int]] = (),
    ) -> Parity:
        """Write a checkpoint folder's files, proven on `prompts`, or on neutral ones if None.

        `texts` as below: where it has some, without them only the file that is not rounded.
        """

    def texts(self, job: Job) -> list[list[int]]:
        """Token ids of the train items that files of few bits are rounded for; most need none."""
        return []

    def quantised(self, job: Job) -> Path:
        """The folder of its files other than the whole one, a stage where they need `texts`."""
        return job.packed(self)

    def file(self, bits: int, scratch: Path) -> Path:
        """The checkpoint's own file at `bits`, else one that is written to `scratch`, unproven."""
        own = self.source.path / self.files[bits]
        if own.exists():
            return own
        self.write(bits, scratch / own.name)
        return scratch / own.name

    @abstractmethod
    def write(self, bits: int, out: Path) -> None:
        """Write the file of the checkpoint at `bits`, unproven, with what it needs beside it."""

    @abstractmethod
    def answers(
        self,
        file: Path,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        on_answer: Callable[[], object],
        timed: int = TIMED,
    ) -> Answers:
        """What one of the files says, in its engine; `on_answer` is called once for each.

        The first `timed` are answered one after another, for what they take.
        """

    def rounded(self, folder: Path, file: Path) -> Callable[[], Any] | None:
        """Loads a checkpoint in torch with the weights of one of its files.

        None where torch would not say what the engine says, which rounds what is multiplied too.
        """
        return None

    def told(self, items: Sequence[Item]) -> dict[str, Any]:
        """What decides its results on items beside the task's file."""
        return {}

    def views(self, task: Task) -> Views:
        """What the task's pictures add to the work."""
        return Views()

    def prompts(self, job: Job, count: int) -> Sequence[Prompt]:
        """The first train items as those of importance and of mending."""
        return [each.ids.tolist() for each in job.data_of(self).train.examples[:count]]

    def feed(self, job: Job) -> Feed | None:
        """What its network is given beside such prompts; None: nothing."""
        return None

    @abstractmethod
    def train_rows(self, job: Job) -> list[Row]:
        """The train items with what the teacher says of them, worked out as a stage."""

    @abstractmethod
    def apart(self, job: Job) -> Callable[[Any], float]:
        """How far a model in torch is from the teacher on some of dev, in nats."""

    @abstractmethod
    def objective(self, job: Job, kl: float) -> Objective:
        """What a student is trained towards: the teacher by the share `kl`, else the answers."""

    def learning_rate(self, hidden: int) -> float:
        """The highest rate for a student of that width."""
        return learning_rate(hidden)

    @abstractmethod
    def reader(self, job: Job) -> Callable[[Any], Reading]:
        """Reads `score` and `share` (of the teacher's) off a student in training; see probe.py."""


def form_of(source: Checkpoint) -> Form:
    """The form that a checkpoint has."""
    if source.family.pictures:
        from flyweight.make.sees import Sees

        return Sees(source)
    if source.family.causal:
        from flyweight.make.writes import Writes

        return Writes(source)
    from flyweight.make.classifies import Classifies

    return Classifies(source)


__all__ = ["Answers", "Cost", "Form", "form_of"]
