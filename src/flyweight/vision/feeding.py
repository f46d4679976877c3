"""What a model with eyes is given where its parts are weighed and mended: rows about pictures."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from flyweight.shrink.batches import Batch, Fed, Feed
from flyweight.vision.objective import looking
from flyweight.vision.pixels import Shelf

MULTIPLE = 8  # of tokens a tile, to which transformers fills it up


def feed_pictures(shelf: Shelf) -> Feed:
    """Feeds models with rows (rows.py) about the pictures of a shelf."""
    return partial(_fed, shelf)


def _fed(shelf: Shelf, model: Any, batch: Batch) -> Fed:
    device, image_id = model.device, model.config.image_token_index
    ids, positions, pictures = (
        each.to(device) for each in (batch.ids, batch.positions, batch.pictures)
    )
    given = looking(shelf.inputs(pictures), ids, positions, image_id)
    tokens = model.model.vision_model.num_patches
    used = given["aspect_ratio_mask"][:, 0].bool()  # [B, tiles]
    patches = _patches(used, tokens, tokens + -tokens % MULTIPLE)
    others = {
        "encoder_layers": patches,
        "encoder_mlp": patches,
        "global_mlp": patches,
        "seen": _patches(used, tokens, tokens).view(-1, tokens),  # as transformers lays them
    }
    return Fed({"input_ids": ids, **given}, batch.counts.to(device), others)


def _patches(used: Tensor, tokens: int, length: int) -> Tensor:
    """bool [B, tiles x length]: the tokens of used tiles [B, tiles], not what fills these up."""
    real = torch.arange(length, device=used.device) < tokens
    return (used[:, :, None] & real).flatten(1)


__all__ = ["feed_pictures"]
