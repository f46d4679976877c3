"""A model on its way through its blocks, all batches of prompts at once, one block at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from flyweight.anatomy import Family
from flyweight.shrink.batches import Batch, Feed, feed_texts


class Course:
    """Where a model stands: before `block`, with what that block will be given.

    Holds one hidden state a token. `offsets` [batches + 1]: where each batch's tokens that count
    begin when all of them are laid end to end.
    """

    def __init__(
        self,
        model: Any,
        family: Family,
        batches: Sequence[Batch],
        feed: Feed | None = None,
    ) -> None:
        feed = feed or feed_texts(family)
        self.model, self.blocks = model, model.get_submodule(family.blocks)
        self.block = 0
        self.hidden: list[Tensor] = []  # [B, T, D] of each batch
        self.counts = [batch.counts.to(model.device) for batch in batches]
        self.offsets = [0]
        for batch in batches:
            self.offsets.append(self.offsets[-1] + int(batch.counts.sum()))
        self.rest: list[list[Any]] = []  # of each batch, what else each block is given
        for batch in batches:
            with self._listening(self.blocks, before=True) as given:
                whole = model.base_model if family.causal else model
                whole(**feed(model, batch).inputs)
            inputs = [given[block] for block in self.blocks]
            self.hidden.append(inputs[0][0][0])
            self.rest.append([(args[1:], named) for args, named in inputs])

    def batches(self) -> Iterator[tuple[int, slice]]:
        """Each batch's number and the places of its tokens."""
        for number in range(len(self.hidden)):
            yield number, slice(self.offsets[number], self.offsets[number + 1])

    def advance(self, names: Sequence[str] = ()) -> dict[str, Tensor]:
        """Go through the block; what its modules `names` said on the way, [N, C] over all tokens.

        Only what is asked for is held.
        """
        modules = {name: self.model.get_submodule(name) for name in names}
        said: dict[str, Tensor] = {}
        for batch, places in self.batches():
            with self._listening(modules.values()) as heard:
                self.hidden[batch] = self._run(batch)
            for name, module in modules.items():
                output = heard[module][1][self.counts[batch]].float()
                if name not in said:
                    said[name] = output.new_empty(self.offsets[-1], output.shape[1])
                said[name][places] = output
        self.block += 1
        return said

    def stages(self, names: Sequence[str]) -> list[list[str]]:
        """These modules of the block in the order in which it computes, those of one input at once.

        Read off its first batch.
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
        return [stage for _, stage in inputs]

    def hear(self, batch: int, names: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """What these modules of the block are given and say, [n, C] each, for a batch's tokens."""
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


__all__ = ["Course"]
