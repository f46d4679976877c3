"""What `prune` does: from a teacher and a task to a smaller model folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flyweight.anatomy import Shape
from flyweight.checkpoint import Checkpoint, open_checkpoint
from flyweight.distill.classify import labelled_rows
from flyweight.distill.labels import ask_labels
from flyweight.distill.teacher import answer_rows, record_teacher
from flyweight.errors import OptionError
from flyweight.folder import check_place
from flyweight.make.rank import divergence, label_divergence, rank_shapes
from flyweight.make.trim import used_vocabulary
from flyweight.make.workload import CALIBRATION, MENDED, RANKING
from flyweight.progress import say
from flyweight.shrink.batches import Feed, Prompt
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.check import check_shape, check_share
from flyweight.shrink.coverage import coverage
from flyweight.shrink.cut import cut_config
from flyweight.shrink.importance import Importance
from flyweight.shrink.keep import Keep, keep_all
from flyweight.shrink.mend import mend_folder
from flyweight.shrink.retoken import rebuild_tokenizer
from flyweight.shrink.stream import cut_folder
from flyweight.shrink.vocabulary import Vocabulary
from flyweight.tasks.encode import encode_items, prompt_ids
from flyweight.tasks.items import Item, Task
from flyweight.tasks.read import read_task
from flyweight.vision.rows import pictures_of, shelve
from flyweight.vision.sights import Sights
from flyweight.vision.vision_folder import open_vision

DEFAULT_SHARE = 0.25
ABSENT = {
    "experts": "is no mixture of experts",
    "encoder_layers": "has no eyes",
    "encoder_mlp": "has no eyes",
}  # sizes that not every teacher has


@dataclass(frozen=True)
class Wish:
    """What is asked for: a share of the parameters, or sizes, ties and the task's tokens alone.

    `mend` lets the weights that stay take over what they can of those that went.
    """

    share: float | None
    sizes: Mapping[str, int]
    tied: bool
    used_tokens: bool
    mend: bool = True

    def named(self) -> str:
        """The options as they were given."""
        given = [f"--{name.replace('_', '-')} {size}" for name, size in self.sizes.items()]
        return ", ".join(given)


def cut_for_task(teacher: str, out: Path, task_file: Path, wish: Wish) -> Path:
    """Cut the teacher as wished into a model folder at `out`; see `prune`."""
    source = open_checkpoint(teacher, pictures=True)
    source.check_declared()
    _check(source, wish)
    check_place(out, teacher)
    task = read_task(task_file, pictures=source.family.pictures)
    with _cutter_of(source, task, task_file) as cutter:
        keep, tokenizer = cutter.keep(wish), None
        vocabulary = cutter.vocabulary() if wish.used_tokens else None
        if vocabulary is not None:
            keep = replace(keep, vocabulary=vocabulary.keep)
            tokenizer = rebuild_tokenizer(cutter.tokenizer, vocabulary.keep, rows=vocabulary.rows)
        finish = cutter.mender(keep) if wish.mend else None
        cut_folder(source.path, out, source.family, keep, tokenizer=tokenizer, finish=finish)
    count = source.family.count(keep.shape, cut_config(source.family, source.config, keep))
    say(f"{out}: {keep.shape}, {count:,} of {source.parameters:,} parameters")
    if vocabulary is not None:
        texts = [message["content"] for item in task.dev for message in item.messages]
        lost = coverage(cutter.tokenizer, tokenizer, vocabulary.keep, texts)
        say(f"{vocabulary}. Of dev: {lost}")
    return out


def _check(source: Checkpoint, wish: Wish) -> None:
    """OptionError for what cannot be cut out of the teacher."""
    family, old = source.family, source.shape
    if wish.share is not None:
        check_share(wish.share)
    if wish.share is not None and wish.sizes:
        raise OptionError(f"--keep and {wish.named()}: give a share or sizes, not both.")
    for name, why in ABSENT.items():
        if name in wish.sizes and not old.size(name):
            option = name.replace("_", "-")
            raise OptionError(f"--{option}: the teacher {why}. Leave it out.")
    wanted = old.with_sizes(**wish.sizes)
    check_shape(family, source.config, wanted)
    if wish.sizes and wanted == old:
        raise OptionError(
            f"{wish.named()}: the teacher has exactly that, so there is nothing to cut. "
            "Give a smaller size, or --keep alone."
        )
    if wish.tied and (family.head is None or family.is_tied(source.config)):
        raise OptionError("--tied: the teacher has no output embedding to tie. Leave it out.")


@contextmanager
def _cutter_of(source: Checkpoint, task: Task, file: Path) -> Iterator[_Cutter]:
    """The cutter for a teacher, and for the pictures that the task in a file asks of."""
    if not source.family.pictures:
        yield _Cutter(source, source.tokenizer(), source.frozen(), task)
        return
    with TemporaryDirectory() as scratch:
        opened = open_vision(source.path)
        names = pictures_of([item for split in task.splits.values() for item in split], file)
        shelf = shelve(Path(scratch) / "pictures.u8", opened.cutter, names, file)
        sights = Sights(opened, shelf, names, file)
        yield _SeeingCutter(source, opened.tokenizer, opened.model, task, sights)


@dataclass(frozen=True)
class _Cutter:
    """A teacher in memory, and the task that tells what matters in it."""

    source: Checkpoint
    tokenizer: Any
    model: Any
    task: Task

    @property
    def feed(self) -> Feed | None:
        """What the teacher is given besides texts; None: nothing."""
        return None

    def keep(self, wish: Wish) -> Keep:
        """What stays of the layers and channels."""
        old = self.source.shape
        alone = wish.share is None and not wish.sizes and (wish.tied or wish.used_tokens)
        if alone:
            return replace(keep_all(old), tied=wish.tied)
        importance = self._importance()
        shape = old.with_sizes(**wish.sizes)
        if not wish.sizes:
            shape = self._nearest(importance, wish.share or DEFAULT_SHARE)
        return replace(importance.keep(old, shape), tied=wish.tied)

    def mender(self, keep: Keep) -> Callable[[Path], None] | None:
        """What mends the folder of the cut; None where every block stays as it was."""
        if replace(keep.shape, vocabulary=keep.old.vocabulary) == keep.old:
            return None

        def finish(folder: Path) -> None:
            prompts, family = self._rows(self.task.train[:MENDED]), self.source.family
            mend_folder(folder, self.model, family, keep, prompts, self.feed)

        return finish

    def vocabulary(self) -> Vocabulary:
        """The tokens that the train items use; dev then tells what others lose."""
        return used_vocabulary(self.source, self.tokenizer, self._sequences(self.task.train))

    def _rows(self, items: Sequence[Item]) -> Sequence[Prompt]:
        """What importance is measured on and cuts are mended by."""
        return self._sequences(items)

    def _sequences(self, items: Sequence[Item]) -> list[list[int]]:
        """Token ids of prompts and answers; of an encoder's prompts alone."""
        if not self.source.family.causal:
            return [prompt_ids(self.tokenizer, item.messages) for item in items]
        context = self.source.context
        examples = encode_items(self.tokenizer, items, self.task.name, context)
        return [each.ids.tolist() for each in examples]

    def _importance(self) -> Importance:
        """What matters in the teacher for the first train items."""
        rows = self._rows(self.task.train[:CALIBRATION])
        return measure_importance(self.model, self.source.family, rows, feed=self.feed)

    def _nearest(self, importance: Importance, share: float) -> Shape:
        """The shape of the grid with about this share that stays nearest to the teacher on dev."""
        source = self.source
        apart = self._apart() if source.family.causal else self._labels_apart()
        ranked = rank_shapes(self.model, source.family, importance, apart, share)
        if not ranked:
            raise OptionError(
                f"no shape of the grid keeps about {share:.0%}. Give another --keep, or the sizes."
            )
        return ranked[0].shape

    def _apart(self) -> Callable[[Any], float]:
        """How far a model that writes is from the teacher on dev."""
        dev = self.task.dev[:RANKING]
        examples = encode_items(self.tokenizer, dev, self.task.name, self.source.context)
        rows = record_teacher(self.model, answer_rows(examples, 0.0))
        return lambda student: divergence(student, rows)

    def _labels_apart(self) -> Callable[[Any], float]:
        """How far a model that classifies is from the teacher on dev; no answers are needed."""
        dev = [replace(item, answer=None) for item in self.task.dev[:RANKING]]
        rows = labelled_rows(self.source, dev, self.task.name)
        said = ask_labels(self.model, rows)
        return lambda student: label_divergence(student, rows, said)


@dataclass(frozen=True)
class _SeeingCutter(_Cutter):
    """A teacher with eyes, and a task of pictures."""

    sights: Sights

    @property
    def feed(self) -> Feed:
        return self.sights.feed

    def _rows(self, items: Sequence[Item]) -> Sequence[Prompt]:
        return self.sights.rows(items)

    def _sequences(self, items: Sequence[Item]) -> list[list[int]]:
        return [row["input_ids"].tolist() for row in self.sights.rows(items)]

    def _apart(self) -> Callable[[Any], float]:
        return self.sights.apart(self.model, self.task.dev[:RANKING])
