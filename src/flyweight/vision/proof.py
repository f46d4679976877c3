"""Proof that the engine says what its checkpoint says: the same answers, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flyweight.runtime.parity import Difference, ParityReport, all_ids, first_difference
from flyweight.vision.engine import VisionEngine
from flyweight.vision.images import open_image
from flyweight.vision.objective import looking
from flyweight.vision.vision_folder import Opened

PROMPTS, TOKENS = 16, 24


def prove(opened: Opened, prompts: Sequence[tuple[Sequence[int], Path | None]]) -> ParityReport:
    """The engine's answers to some prompts against the model's own forward pass.

    ParityError as of runtime/parity.py.
    """
    prompts = prompts[:PROMPTS]
    parted: list[Difference] = []
    engine = VisionEngine(opened.folder, context=max(len(ids) for ids, _ in prompts) + TOKENS)
    with engine:
        for number, (ids, picture) in enumerate(prompts):
            image = None if picture is None else open_image(picture)
            engine.see(image)
            answer = all_ids(engine.generate(ids, max(1, min(TOKENS, engine.context - len(ids)))))
            parted += first_difference(number, _logits(opened, ids, answer, image), answer)
    report = ParityReport.of(len(prompts), parted)
    report.check(opened.folder)
    return report


@torch.inference_mode()
def _logits(opened: Opened, ids: Sequence[int], answer: Sequence[int], image: Any) -> Tensor:
    """What the model says before each token of an answer [n, V]."""
    whole = torch.tensor([[*ids, *answer]])
    given: dict[str, Any] = {"use_cache": False}
    if image is not None:
        shown = opened.cutter.given([opened.cutter.cut(image)])
        places = torch.arange(whole.shape[1])[None]
        given = looking(shown, whole, places, opened.image_id)
    return opened.model(whole, **given).logits[0, len(ids) - 1 : -1]


__all__ = ["prove"]
