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
from typing import Any

import torch
from torch import Tensor, nn

from flyweight.anatomy import Family
from flyweight.anatomy.family import Place
from flyweight.errors import OptionError
from flyweight.progress import track
from flyweight.shrink.batches import Batch, Prompt, Stream
from flyweight.shrink.keep import Keep, is_fixed
from flyweight.shrink.scales import Scales, scales_of

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


@torch.no_grad()
def mend(
    student: Any,
    teacher: Any,
    family: Family,
    keep: Keep,
    prompts: Iterable[Prompt],
    batch_size: int = 32,
    *,
    tokens: int = TOKENS,
) -> list[Mended]:
    """Mend in place what `cut_model(teacher, family, keep)` gave; what was mended, in order.

    Reads at most `tokens` of the `prompts`, token ids as those of importance, in as many passes as
    a block has linear weights with inputs of their own (a Llama: 4) and two more. Holds two hidden
    states for each token and, of one weight at a time, the square of its inputs. Embeddings, head,
    norms, biases and experts stay as they are, and so does everything where nothing was lost.
    Raises OptionError where a prompt holds a token that went.
    """
    batches = list(Stream(prompts, batch_size, tokens))
    scales = scales_of(family, teacher.config, keep)
    wanted = _Course(teacher, family, batches)
    said = _Course(student, family, [_renumbered(batch, keep) for batch in batches])
    mended: list[Mended] = []
    for new, old in enumerate(track(keep.layers.tolist(), "Mending")):
        wanted.go_to(old)
        weights = _weights(family, student, new, old)
        for stage in said.stages([weight.said for weight in weights]):
            together = [weight for weight in weights if weight.said in stage]
            mended += _fit(together, wanted, said, keep, scales)
        said.go_to(new + 1)
    return mended


def _renumbered(batch: Batch, keep: Keep) -> Batch:
    """The batch in the student's token ids."""
    if keep.vocabulary is None:
        return batch
    new = torch.full((keep.old.vocabulary,), -1)
    new[keep.vocabulary] = torch.arange(len(keep.vocabulary))
    ids = new[batch.ids]
    gone = batch.ids[batch.counts & (ids < 0)]
    if len(gone):
        raise OptionError(f"a prompt to mend by holds the token {int(gone[0])}, which was cut.")
    return replace(batch, ids=ids.clamp_min(0))  # padding may be any


@dataclass(frozen=True)
class _Weight:
    """A linear module of the student: its name, that in the teacher, and its weight's place."""

    said: str
    wanted: str
    place: Place
    layer: int  # of the student


def _weights(family: Family, student: Any, new: int, old: int) -> list[_Weight]:
    """The linear weights of a block."""
    found = []
    for template in family.parameters:
        module, _, kind = template.rpartition(".")
        if (
            kind != "weight"
            or "{layer}" not in module
            or not family.has(template, student.config, new)
        ):
            continue
        said = module.format(layer=new)
        if isinstance(student.get_submodule(said), nn.Linear):
            place = family.spell(f"{said}.weight")
            found.append(_Weight(said, module.format(layer=old), place, new))
    return found


class _Course:
    """A model on its way through its blocks with all batches at once."""

    def __init__(self, model: Any, family: Family, batches: Sequence[Batch]) -> None:
        self.model, self.blocks = model, model.get_submodule(family.blocks)
        self.block = 0
        self.hidden: list[Tensor] = []  # [B, T, D] of each batch, what the block will be given
        self.counts = [batch.counts.to(model.device) for batch in batches]
        self.rest: list[list[Any]] = []  # of each batch, what else each block is given
        for batch, counts in zip(batches, self.counts, strict=True):
            with self._listening(self.blocks, before=True) as given:
                whole = model.base_model if family.causal else model
                whole(input_ids=batch.ids.to(model.device), **family.inputs(counts))
            inputs = [given[block] for block in self.blocks]
            self.hidden.append(inputs[0][0][0])
            self.rest.append([(args[1:], named) for args, named in inputs])

    def go_to(self, block: int) -> None:
        """Work out what this block will be given."""
        while self.block < block:
            self.hidden = [self._run(batch) for batch in range(len(self.hidden))]
            self.block += 1

    def stages(self, names: Sequence[str]) -> Iterator[list[str]]:
        """These modules of the block in the order in which it computes, those of one input at once.

        Read off its first batch, before any of them changes.
        """
        modules = {self.model.get_submodule(name): name for name in names}
        with self._listening(modules, before=True) as given:
            self._run(0)
        inputs: list[tuple[Tensor, list[str]]] = []
        for module, (args, _) in given.items():
            if inputs and inputs[-1][0] is args[0]:
                inputs[-1][1].append(modules[module])
            else:
                inputs.append((args[0], [modules[module]]))
        yield from [stage for _, stage in inputs]

    def hear(self, batch: int, names: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """What these modules are given and say, [N, C] each, for the tokens that count."""
        modules = [self.model.get_submodule(name) for name in names]
        with self._listening(modules) as heard:
            self._run(batch)
        counts = self.counts[batch]
        return [
            (heard[module][0][counts].float(), heard[module][1][counts].float())
            for module in modules
        ]

    def _run(self, batch: int) -> Tensor:
        args, named = self.rest[batch][self.block]
        after = self.blocks[self.block](self.hidden[batch], *args, **named)
        return after[0] if isinstance(after, tuple) else after

    @contextmanager
    def _listening(
        self, modules: Iterable[nn.Module], *, before: bool = False
    ) -> Iterator[dict[nn.Module, Any]]:
        """By module, in the order of their calls: (input, output), or `before` all it was given."""
        heard: dict[nn.Module, Any] = {}

        def on_call(module: nn.Module, args: Any, named: Any) -> None:
            heard[module] = (args, named)

        def on_return(module: nn.Module, args: Any, output: Tensor) -> None:
            heard[module] = (args[0], output)

        hooks = [
            module.register_forward_pre_hook(on_call, with_kwargs=True)
            if before
            else module.register_forward_hook(on_return)
            for module in modules
        ]
        try:
            yield heard
        finally:
            for hook in hooks:
                hook.remove()


def _fit(
    weights: Sequence[_Weight], wanted: _Course, said: _Course, keep: Keep, scales: Scales
) -> list[Mended]:
    """Fit weights that have one input [N, M] between them."""
    sums = [_Sums() for _ in weights]
    gram: Any = 0.0
    for batch in range(len(said.hidden)):
        theirs = wanted.hear(batch, [weight.wanted for weight in weights])
        ours = said.hear(batch, [weight.said for weight in weights])
        x = ours[0][0]
        gram = gram + (x.T @ x).double()
        for weight, each, (_, t), (_, y) in zip(weights, sums, theirs, ours, strict=True):
            each.add(x, y, _kept(t.to(y.device), weight, keep, scales))
    return [
        each.settle(said.model.get_submodule(weight.said), gram, weight.said)
        for weight, each in zip(weights, sums, strict=True)
    ]


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
