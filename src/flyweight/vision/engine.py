"""A model with eyes as an engine: pictures are looked at once, answers written step by step."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from flyweight.errors import OptionError
from flyweight.runtime.chat_format import ChatFormat
from flyweight.runtime.engine import Capability, Generation, Wish, check_sizes
from flyweight.runtime.threads import cores
from flyweight.runtime.torch_engine import InTorch, ends_of, shared_beginning
from flyweight.runtime.torch_steps import Clock, Grammar
from flyweight.vision.decoder import Decoder, Product, Seen, plain
from flyweight.vision.eight_bits import eight_bits
from flyweight.vision.pixels import Tiled
from flyweight.vision.prompts import format_of
from flyweight.vision.vision_folder import Opened, open_vision

KEPT = 8  # pictures that were looked at and may be asked about again
WEIGHTS: dict[int, Callable[[Tensor], Product]] = {32: plain, 8: eight_bits}


class VisionEngine(InTorch):
    """A Mllama folder on the processor, in fp32 or with its language model's weights in 8 bits.

    With 8 bits all weights are those of the folder's file of 8 bits, where it has one; no other is
    read. `see` says which picture the prompts that follow speak of. Raises TeacherError for a
    folder that has no eyes or cannot be loaded.
    """

    name: ClassVar[str] = "torch"
    can: ClassVar[frozenset[Capability]] = frozenset(
        {"stream", "log-probabilities", "constrain", "reuse"}
    )

    def __init__(
        self, folder: Path, *, context: int = 2048, threads: int | None = None, bits: int = 32
    ) -> None:
        check_sizes(context, 1, threads)
        if bits not in WEIGHTS:
            raise OptionError(f"bits is {bits}: choose from {', '.join(map(str, WEIGHTS))}")
        opened = open_vision(folder, bits)
        self._begin(opened, min(context, opened.context), threads or cores())
        with torch.inference_mode():
            self._decoder: Any = Decoder(opened.model, WEIGHTS[bits])

    def _begin(self, opened: Opened, context: int, threads: int) -> None:
        self.source, self.cutter = opened.folder, opened.cutter
        self._image_id = int(opened.model.config.image_token_index)
        self.context, self.streams, self.threads = context, 1, threads
        self._tokenizer, self._model = opened.tokenizer, opened.model
        self._ends = ends_of(opened.model, opened.tokenizer)
        self._looked: OrderedDict[str, Seen] = OrderedDict()
        self._picture: Tiled | None = None
        self._seen: Seen | None = None
        self._read: list[int] = []  # what the decoder holds keys and values of
        self.encoder_seconds = 0.0  # that the last new picture took, once it was cut

    @cached_property
    def form(self) -> ChatFormat:
        """How its tokenizer writes conversations; OptionError without a chat template."""
        return format_of(self._tokenizer, str(self.source))

    @property
    def tokenizer(self) -> Any:
        """transformers' tokenizer."""
        return self._tokenizer

    def see(self, picture: Image.Image | Tiled | None) -> None:
        """What is asked from now on is about this picture (RGB, or cut already), or about none.

        It is looked at with the first question; one that was asked about before costs nothing.
        """
        self._picture = self.cutter.cut(picture) if isinstance(picture, Image.Image) else picture

    def _look(self) -> None:
        """Have in mind what is asked about."""
        before = self._seen
        self._seen = None if self._picture is None else self._seen_of(self._picture)
        if self._seen is not before:
            self._read = []

    def _seen_of(self, tiled: Tiled) -> Seen:
        key = tiled.sha256()
        if key in self._looked:
            self._looked.move_to_end(key)
            return self._looked[key]
        started = time.perf_counter()
        with self._running() as model:
            states = _encoded(model, self.cutter.given([tiled]), len(tiled.tiles))
            seen = self._decoder.look(states)
        self.encoder_seconds = time.perf_counter() - started
        self._looked[key] = seen
        while len(self._looked) > KEPT:
            self._looked.popitem(last=False)
        return seen

    def forget(self) -> None:
        """Have no picture in mind and no prompt: all is looked at and read anew."""
        self._seen, self._read = None, []
        self._looked.clear()

    def close(self) -> None:
        self._model = self._decoder = None
        self.forget()

    def _run(
        self,
        prompts: Sequence[Sequence[int]],
        seed: int,
        wish: Wish,
        *,
        reuse: bool,
        streamer: Any = None,
    ) -> tuple[list[Generation], Any]:
        """One prompt, greedily or drawn, until it ends."""
        [prompt] = prompts
        self._look()
        start = shared_beginning(self._read, prompt) if reuse else 0
        self._read = []  # it is written over from here on
        ends = self._ends | set(wish.stop_ids)
        clock, given = Clock(), torch.tensor([[*prompt]])
        grammar = None
        if wish.constraint is not None:
            grammar = Grammar(self._matchers(wish.constraint, 1), len(prompt), self._ends)
        if streamer is not None:
            streamer.put(given)
        written: list[int] = []
        kept: list[Tensor] = []
        dice = torch.Generator().manual_seed(seed)
        with self._running():
            logits = self._step(prompt[start:], start, prompt)
            while True:
                scores = logits[None] if grammar is None else self._held(grammar, given, logits)
                clock(given, scores)
                if wish.top:
                    kept.append(logits[None])
                written.append(_chosen(scores[0], wish, dice))
                if streamer is not None:
                    streamer.put(torch.tensor(written[-1:]))
                if written[-1] in ends or len(written) == wish.max_tokens:
                    break
                if wish.stop and self._stops(written, wish):
                    break
                given = torch.tensor([[*prompt, *written]]) if grammar else given
                logits = self._step(written[-1:], len(prompt) + len(written) - 1, prompt)
        self._read = [*prompt, *written[:-1]]
        out = SimpleNamespace(logits=kept)
        answer = self._generation(0, written, wish, clock, len(prompt) - start, out)
        return [answer], out

    def _held(self, grammar: Grammar, given: Tensor, logits: Tensor) -> Tensor:
        """Scores [1, V] of what a grammar allows; it knows tokens that the model cannot write."""
        more = self._grammar_size - len(logits)
        wide = F.pad(logits[None], (0, more), value=-torch.inf)
        return grammar(given, wide)[:, : len(logits)]

    def _step(self, ids: Sequence[int], start: int, prompt: Sequence[int]) -> Tensor:
        """Logits [V] after `ids`, which stand at `start`; from its token on the picture is seen."""
        image = self._image_id
        place = prompt.index(image) if image in prompt else self.context
        return self._decoder.read(ids, start, self._seen, place)

    def _stops(self, written: Sequence[int], wish: Wish) -> bool:
        text = self.detokenize(written)
        return any(stop in text for stop in wish.stop)


def _encoded(model: Any, given: dict[str, Tensor], tiles: int) -> Tensor:
    """What the projector gives [N, D] of a picture's used tiles."""
    states = model.model.vision_model(**given).last_hidden_state  # [1, 1, tiles, tokens, D]
    return model.model.multi_modal_projector(states[0, 0, :tiles]).flatten(0, 1)


def _chosen(scores: Tensor, wish: Wish, dice: torch.Generator) -> int:
    """The likeliest token of [V], or one drawn as the wish says."""
    if wish.temperature == 0:
        return int(scores.argmax())
    shares = ((scores - scores.max()).double() / wish.temperature).softmax(-1)
    if wish.top_p < 1:
        ordered, places = shares.sort(descending=True)
        beyond = ordered.cumsum(0) - ordered >= wish.top_p
        shares[places[beyond]] = 0
    return int(torch.multinomial(shares, 1, generator=dice))


__all__ = ["KEPT", "WEIGHTS", "VisionEngine"]
