"""Proof that the engine says what its checkpoint says: the same answers, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flyweight.card import Parity
from flyweight.errors import ParityError
from flyweight.runtime.parity import NEAR_TIE_NATS
from flyweight.vision.engine import VisionEngine
from flyweight.vision.images import open_image
from flyweight.vision.objective import looking
from flyweight.vision.vision_folder import Opened, open_vision

PROMPTS, TOKENS = 16, 24


def prove(folder: Path, prompts: Sequence[tuple[Sequence[int], Path | None]]) -> tuple[Parity, Any]:
    """The engine's answers to some prompts against the model's own forward pass, and that model.

    As runtime/parity.py: an answer is equal where each of its tokens is the likeliest after those
    before. ParityError where one is not by more than a near tie.
    """
    opened, ties, equal = open_vision(folder), [], 0
    prompts = prompts[:PROMPTS]
    engine = VisionEngine(folder)
    with engine:
        for number, (ids, picture) in enumerate(prompts):
            image = None if picture is None else open_image(picture)
            engine.see(image)
            said = engine.generate(ids, TOKENS)
            written = said.ids if said.stop_id is None else [*said.ids, said.stop_id]
            place, nats = _parting(_logits(opened, ids, written, image), written)
            if nats > NEAR_TIE_NATS:
                raise ParityError(
                    f"{folder}: an answer of the engine differs from its checkpoint's by "
                    f"{nats:.2f} nats (prompt {number}, token {place}): do not use it"
                )
            equal += nats == 0
            ties += [f"prompt {number + 1}, token {place + 1}: {nats:.3f} nats"] if nats else []
    return Parity(prompts=len(prompts), equal=equal, near_ties=ties), opened.model


@torch.inference_mode()
def _logits(opened: Opened, ids: Sequence[int], written: Sequence[int], image: Any) -> Tensor:
    """What the model says before each written token [n, V]."""
    whole = torch.tensor([[*ids, *written]])
    given: dict[str, Any] = {"use_cache": False}
    if image is not None:
        shown = opened.cutter.given([opened.cutter.cut(image)])
        places = torch.arange(whole.shape[1])[None]
        given = looking(shown, whole, places, opened.image_id)
    return opened.model(whole, **given).logits[0, len(ids) - 1 : -1]


def _parting(logits: Tensor, written: Sequence[int]) -> tuple[int, float]:
    """Where a token first is not the likeliest, and by how many nats; 0 nats where nowhere."""
    said = torch.tensor(written)
    parts = (logits.argmax(-1) != said).nonzero()
    if not len(parts):
        return 0, 0.0
    place = int(parts[0])
    shares = logits[place].log_softmax(-1)
    return place, max(float(shares.max() - shares[said[place]]), 1e-9)


__all__ = ["prove"]
