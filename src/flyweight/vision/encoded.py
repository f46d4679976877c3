"""What an encoder that stays as it is makes of many pictures, worked out once and kept on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flyweight.distill.trainer import fast_math
from flyweight.folder import check_space
from flyweight.progress import track
from flyweight.vision.pixels import Shelf

AT_ONCE = 64  # pictures


class Encoded:
    """An encoder's states of a shelf's pictures, memory-mapped.

    bfloat16, which NumPy holds as int16: [pictures, 1, tiles, tokens, D].
    """

    def __init__(self, shelf: Shelf, states: np.ndarray) -> None:
        self._shelf, self._states = shelf, states

    @classmethod
    def fill(cls, file: Path, model: Any, shelf: Shelf, count: int | None = None) -> Encoded:
        """Let a model's encoder look at the first `count` pictures, once for a `file`.

        None are all of them. Raises NoSpace before it begins.
        """
        count = len(shelf) if count is None else count
        config = model.config.vision_config
        tokens = model.model.vision_model.num_patches
        shape = (count, 1, config.max_num_tiles, tokens, config.vision_output_dim)
        if not file.is_file():
            scratch = file.with_name(f".{file.name}")
            scratch.unlink(missing_ok=True)  # what a kill left behind is room
            check_space(file, 2 * int(np.prod(shape)))
            try:
                _look(scratch, model, shelf, count)
                scratch.replace(file)
            finally:
                scratch.unlink(missing_ok=True)
        return cls(shelf, np.memmap(file, np.int16, "r", shape=shape))

    def __len__(self) -> int:
        return len(self._states)

    def tokens(self, numbers: Tensor, tokens: Tensor) -> Tensor:
        """The states float32 [N, D] of one token, int64 [N], of each of these first tiles."""
        states = torch.from_numpy(self._states[numbers.numpy(), 0, 0, tokens.numpy()])
        return states.view(torch.bfloat16).float()

    def inputs(self, numbers: Tensor) -> dict[str, Tensor]:
        """What a model is given of these pictures, int64 [B], instead of their pixels.

        `cross_attention_states` are the encoder's, which are yet to be `projected`.
        """
        states = torch.from_numpy(self._states[numbers.cpu().numpy()]).view(torch.bfloat16)
        mask = self._shelf.arrangement(numbers)["aspect_ratio_mask"]
        return {
            "aspect_ratio_mask": mask,
            "cross_attention_states": states.to(numbers.device),
        }


def projected(model: Any, states: Tensor) -> Tensor:
    """States of an encoder [B, 1, tiles, tokens, D] as cross-attention reads them."""
    projector = model.model.multi_modal_projector
    return projector(states.to(projector.weight.dtype)).flatten(0, 2)  # [B * tiles, tokens, width]


def _look(file: Path, model: Any, shelf: Shelf, count: int) -> None:
    encoder = model.eval().model.vision_model
    begins = range(0, count, AT_ONCE)
    with file.open("wb") as out, torch.inference_mode():
        for first in track(begins, "Looking at pictures"):
            numbers = torch.arange(first, min(first + AT_ONCE, count))
            with fast_math(numbers):
                states = encoder(**shelf.inputs(numbers)).last_hidden_state
            out.write(states.to(torch.bfloat16).view(torch.int16).numpy().tobytes())


__all__ = ["Encoded", "projected"]
