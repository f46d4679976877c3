"""Mending a cut: the weights that are left take over what can be told from the channels they keep.

Every linear weight of a block is fitted anew to say what the teacher's says, by least squares over
the user's own prompts: with x what the student's weight is given, y what it says and t what the
teacher's says (its rows that stay, times the factors of the cut), W grows by

    E[(t - y) x'] (E[x x'] + r)^-1.

It goes block by block in the order in which a block computes, each weight fitted to inputs that
come out of the mended ones before it, so that errors do not pile up. No gradients, no labels; the
pull r towards the sliced weight leaves alone what the prompts do not tell. For one weight that
reads pruned channels this is the update of ZipLM (arXiv:2302.04089) and OSSCAR (arXiv:2403.12983).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.anatomy import Family
from flyweight.anatomy.family import Place
from flyweight.checkpoint import open_checkpoint
from flyweight.errors import OptionError
from flyweight.placed import placed
from flyweight.progress import track
from flyweight.shrink.batches import Batch, Feed, Prompt, Stream
from flyweight.shrink.course import Course
from flyweight.shrink.cut import place_of
from flyweight.shrink.keep import Keep, is_fixed
from flyweight.shrink.readings import SEEN
from flyweight.shrink.scales import Scales, scales_of
from flyweight.shrink.stored import stored_tensors

TOKENS = 2**14  # that weights are fitted to: a few times the widest input of a small model
RIDGE = 1e-3  # r over the mean square of an input
EQUAL = 1e-10  # share of a square below which two outputs differ by rounding alone


@dataclass(frozen=True)
class Mended:
    """Squared distance of what a student's weight says from the teacher's, over the prompts.

    As shares of the square of what the teacher's says.
    """

    name: str
    before: float
    after: float


def mend(
    student: Any,
    teacher: Any,
    family: Family,
    keep: Keep,
    prompts: Iterable[Prompt],
    batch_size: int = 32,
    *,
    tokens: int = TOKENS,
    feed: Feed | None = None,
) -> list[Mended]:
    """Mend in place what `cut_model(teacher, family, keep)` gave; what was mended, in order.

    See `mend_all`.
    """
    cuts = [(student, keep)]
    return mend_all(cuts, teacher, family, prompts, batch_size, tokens=tokens, feed=feed)[0]


@torch.no_grad()
def mend_all(
    cuts: Sequence[tuple[Any, Keep]],
    teacher: Any,
    family: Family,
    prompts: Iterable[Prompt],
    batch_size: int = 32,
    *,
    tokens: int = TOKENS,
    feed: Feed | None = None,
) -> list[list[Mended]]:
    """Mend in place students that were cut from one teacher, each with what it keeps.

    What was mended of each, in order. Reads at most `tokens` of the `prompts`, token ids as those
    of importance. The teacher runs twice over them, however many students there are, a student as
    often as a block has linear weights with inputs of their own (a Llama: 4) and twice more. Holds
    two hidden states a token for each model, what the teacher's weights say in one block and, of
    one weight at a time, the square of its inputs. Embeddings, head, norms, biases and experts stay
    as they are, and an encoder with all that reads of it, and everything where nothing was lost.
    What models are given besides texts `feed` tells. Raises OptionError where a prompt holds a
    token that went.
    """
    batches = list(Stream(prompts, batch_size, tokens))
    with _beside(teacher, [model for model, _ in cuts], feed):
        students = [_Student(model, teacher, family, keep, batches, feed) for model, keep in cuts]
        course = Course(teacher, family, batches, feed)
        for old in track(range(max(student.last for student in students) + 1), "Mending"):
            fitted = [student.weights(old) for student in students]
            names = dict.fromkeys(weight.wanted for weights in fitted for weight in weights)
            wanted = course.advance(list(names))
            for student, weights in zip(students, fitted, strict=True):
                student.fit(weights, wanted)
    return [student.mended for student in students]


@contextmanager
def _beside(teacher: Any, students: Sequence[Any], feed: Feed | None) -> Iterator[None]:
    """While inside, all are where the teacher computes; what it is fed besides texts stays here."""
    home = [student.device for student in students]
    with placed(*([teacher] if feed is None else [])):
        try:
            for student in students:
                student.to(teacher.device)
            yield
        finally:
            for student, device in zip(students, home, strict=True):
                student.to(device)


def mend_folder(
    folder: Path,
    teacher: Any,
    family: Family,
    keep: Keep,
    prompts: Iterable[Prompt],
    feed: Feed | None = None,
) -> list[Mended]:
    """Mend the checkpoint that `cut_folder` wrote, in its files and in their types; see `mend`."""
    student = open_checkpoint(folder, pictures=family.pictures).model()
    mended = mend(student, teacher, family, keep, prompts, feed=feed)
    stored = {place_of(family, name): tensor for name, tensor in stored_tensors(folder).items()}
    for each in mended:
        name = f"{each.name}.weight"
        stored[place_of(family, name)].overwrite(student.get_parameter(name))
    return mended


@dataclass(frozen=True)
class _Weight:
    """A linear module of the student: its name, that in the teacher, and its weight's place."""

    said: str
    wanted: str
    place: Place
    layer: int  # of the student


class _Student:
    """A student on its way, a block for each block of the teacher that it keeps."""

    def __init__(
        self,
        model: Any,
        teacher: Any,
        family: Family,
        keep: Keep,
        batches: Sequence[Batch],
        feed: Feed | None,
    ) -> None:
        self.model, self.family, self.keep = model, family, keep
        self.scales = scales_of(family, teacher.config, keep)
        renumbered = [_renumbered(batch, keep) for batch in batches]
        self.course = Course(model, family, renumbered, feed)
        self.layers: list[int] = keep.layers.tolist()
        self.mended: list[Mended] = []

    @property
    def last(self) -> int:
        """The last of the teacher's blocks that it keeps."""
        return self.layers[-1]

    def weights(self, old: int) -> list[_Weight]:
        """The linear weights of its block that was the teacher's block `old`, if it has one."""
        if old not in self.layers:
            return []
        new, found = self.layers.index(old), []
        for template in self.family.parameters:
            module, _, kind = template.rpartition(".")
            if (
                kind != "weight"
                or not module.startswith(self.family.blocks)
                or not self.family.has(template, self.model.config, new)
            ):
                continue
            said = module.format(layer=new)
            if isinstance(self.model.get_submodule(said), nn.Linear):
                place = self.family.spell(f"{said}.weight")
                if place.dimensions[1] != SEEN:
                    found.append(_Weight(said, module.format(layer=old), place, new))
        return found

    def fit(self, weights: Sequence[_Weight], wanted: dict[str, Tensor]) -> None:
        """Fit a block's weights to what the teacher's said [N, C] each, and go through it."""
        if not weights:
            return
        for stage in self.course.stages([weight.said for weight in weights]):
            together = [weight for weight in weights if weight.said in stage]
            self.mended += self._fit(together, wanted)
        self.course.advance()

    def _fit(self, weights: Sequence[_Weight], wanted: dict[str, Tensor]) -> list[Mended]:
        """Fit weights that have one input [N, M] between them."""
        sums = [_Sums() for _ in weights]
        gram: Any = 0.0
        for batch, places in self.course.batches():
            ours = self.course.hear(batch, [weight.said for weight in weights])
            x = ours[0][0]
            gram = gram + (x.T @ x).double()
            for weight, each, (_, y) in zip(weights, sums, ours, strict=True):
                theirs = wanted[weight.wanted][places].to(y.device)
                each.add(x, y, _kept(theirs, weight, self.keep, self.scales))
        return [
            each.settle(self.model.get_submodule(weight.said), gram, weight.said)
            for weight, each in zip(weights, sums, strict=True)
        ]


def _renumbered(batch: Batch, keep: Keep) -> Batch:
    """The batch in the student's token ids."""
    if keep.vocabulary is None:
        return batch
    rows, stay = keep.old.vocabulary, len(keep.vocabulary)
    new = torch.full((rows,), -1)
    new[keep.vocabulary] = torch.arange(stay)
    beyond = batch.ids - rows  # a picture's token may have no row of the vocabulary
    ids = torch.where(beyond < 0, new[batch.ids.clamp(max=rows - 1)], stay + beyond)
    gone = batch.ids[batch.counts & (ids < 0)]
    if len(gone):
        raise OptionError(f"a prompt to mend by holds the token {int(gone[0])}, which was cut.")
    return replace(batch, ids=ids.clamp_min(0))  # padding may be any


def _kept(output: Tensor, weight: _Weight, keep: Keep, scales: Scales) -> Tensor:
    """The part of the teacher's output [N, C] that stays, times the factors of the cut."""
    rows = weight.place.dimensions[0]
    if not is_fixed(rows):
        output = output[:, keep.index(rows, weight.layer).to(output.device)]
    factors = scales.apply(torch.ones(output.shape[1], 1), weight.place)[:, 0]
    return output * factors.to(output.device)


class _Sums:
    """What one weight lacks, over all tokens."""

    def __init__(self) -> None:
        self.cross: Any = 0.0  # [M, C]: inputs times what is lacking
        self.lacking: Any = 0.0  # its square
        self.wanted: Any = 0.0  # the square of what is wanted

    def add(self, x: Tensor, said: Tensor, wanted: Tensor) -> None:
        """Add N tokens: inputs [N, M], outputs [N, C]."""
        lacking = wanted - said
        self.cross = self.cross + (x.T @ lacking).double()
        self.lacking += float(lacking.double().square().sum())
        self.wanted += float(wanted.double().square().sum())

    def settle(self, module: Any, gram: Tensor, name: str) -> Mended:
        """Let the module's weight grow by what is lacking, given its inputs' `gram` [M, M]."""
        if self.lacking <= EQUAL * self.wanted:
            return Mended(name, 0.0, 0.0)
        pull = RIDGE * gram.diagonal().mean() + torch.finfo(torch.float32).tiny
        pulled = gram + pull * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        grown = torch.cholesky_solve(self.cross, torch.linalg.cholesky(pulled))  # [M, C]
        left = self.lacking - float((grown * (2 * self.cross - gram @ grown)).sum())
        module.weight.copy_((module.weight.double() + grown.T).to(module.weight.dtype))
        whole = max(self.wanted, torch.finfo(torch.float32).tiny)
        return Mended(name, self.lacking / whole, max(0.0, left) / whole)
