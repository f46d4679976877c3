"""Hidden states that follow the teacher's: a loss with parameters of its own, not the student's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from flyweight.anatomy import family_of
from flyweight.distill.live import OnPolicy, in_teachers_ids
from flyweight.distill.losses import Batch, final_hidden, wanted_tokens
from flyweight.errors import OptionError

States = dict[int, Tensor]  # the number of blocks passed -> hidden states [B, T, D]


class HiddenMatching(nn.Module):
    """Another objective plus `weight` x the distance of hidden states, mapped by learned matrices.

    `pairs` are (student's, teacher's) numbers of blocks passed, 0 being the embedding; the final
    norm is not passed. Each pair has its own matrix from the student's width to the teacher's
    (FitNets, Romero et al. 2015; TinyBERT, Jiao et al. 2020). The distance is the squared error
    over the mean square of the teacher's states: 1 for a guess of zero, 0 for equals; weighted over
    tokens as their predictions are. The matrices learn with the student (attached.py). The teacher
    runs once a batch: where the objective runs it, its states are those; else in its own ids
    (`to_teacher` as in LiveDistillation). Raises OptionError for blocks that are not there.
    """

    def __init__(
        self,
        objective: Any,
        student: Any,
        teacher: Any,
        pairs: Sequence[tuple[int, int]],
        weight: float = 1.0,
        to_teacher: Tensor | None = None,
    ) -> None:
        super().__init__()
        if isinstance(objective, OnPolicy):
            raise OptionError("hidden states are matched on given answers: not with on-policy.")
        shapes = [family_of(each.config).shape_of(each.config) for each in (student, teacher)]
        for mine, yours in pairs:
            if not (0 <= mine <= shapes[0].layers and 0 <= yours <= shapes[1].layers):
                raise OptionError(
                    f"hidden states after blocks {mine} and {yours} cannot be matched: the student "
                    f"has {shapes[0].layers} blocks, the teacher {shapes[1].layers}."
                )
        self.objective, self.pairs, self.weight = objective, tuple(pairs), weight
        self.to_teacher = to_teacher
        self._teacher = [teacher]  # in a list: else it were a part of this module
        widths = shapes[0].hidden, shapes[1].hidden
        self.learned = nn.ModuleList(nn.Linear(*widths, bias=False) for _ in pairs)
        for each in self.learned:
            nn.init.eye_(cast(nn.Linear, each).weight)

    @property
    def teacher(self) -> Any:
        """The model whose states are followed."""
        return self._teacher[0]

    def forward(self, model: Any, batch: Batch) -> Tensor:
        """The objective's loss plus the distance, with one pass of student and teacher each."""
        mine, yours = ([pair[side] for pair in self.pairs] for side in (0, 1))
        with watched(model, mine) as states, watched(self.teacher, yours) as wished:
            loss = self.objective(model, batch)
            if not wished:
                with torch.no_grad():
                    final_hidden(self.teacher, in_teachers_ids(batch, self.to_teacher))
        return loss + self.weight * self.distance(states, wished, batch)

    def distance(self, states: States, wished: States, batch: Batch) -> Tensor:
        """The weighted mean relative squared error over pairs and tokens."""
        _, share = wanted_tokens(batch)
        wanted = batch["weights"][:, 1:] != 0
        found = share.new_zeros(())
        for (mine, yours), projection in zip(self.pairs, self.learned, strict=True):
            goal = wished[yours][:, :-1][wanted].float()  # [N, teacher's D]
            gap = projection(states[mine][:, :-1][wanted]).float() - goal
            size = (goal.square().sum() / max(1, goal.numel())).clamp_min(
                torch.finfo(goal.dtype).tiny
            )
            found = found + (gap.square().mean(-1) * share).sum() / size
        return found / len(self.pairs)


def even_pairs(student: Any, teacher: Any) -> list[tuple[int, int]]:
    """After each of the student's blocks, the teacher's block at the same share of the depth."""
    mine, yours = (
        family_of(each.config).shape_of(each.config).layers for each in (student, teacher)
    )
    return [(passed, max(1, round(passed * yours / mine))) for passed in range(1, mine + 1)]


@contextmanager
def watched(model: Any, passed: Sequence[int]) -> Iterator[States]:
    """The hidden states after so many blocks, of the passes made inside: those of the last one."""
    family = family_of(model.config)
    blocks = list(model.get_submodule(family.blocks))
    states: States = {}

    def before(place: int) -> Any:
        def keep(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            states[place] = given[0] if given else named["hidden_states"]

        return keep

    def after(_: Any, __: Any, output: Any) -> None:
        states[len(blocks)] = output[0] if isinstance(output, tuple) else output

    hooks = [
        blocks[place].register_forward_pre_hook(before(place), with_kwargs=True)
        if place < len(blocks)
        else blocks[-1].register_forward_hook(after)
        for place in set(passed)
    ]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


__all__ = ["HiddenMatching", "even_pairs", "watched"]
