"""A batch taken in parts: the gradient of the whole, the memory of a part."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from flyweight.distill.losses import Batch

SAID = ("top", "indices", "tail")  # of the wanted tokens of all rows, laid end to end
# Tokens, padding included, whose activations are held at once: long rows else take as much memory
# as they please (32 rows of 2,000 tokens: 64,000 at once).
AT_ONCE = {"cpu": 2**12, "cuda": 2**14}
ROOMY = 80e9  # bytes of a GPU with room for so many: 3 MB a token of a student of 1 G parameters


def at_once(device: torch.device) -> int:
    """How many tokens a part may have on such a device: on a smaller GPU fewer."""
    most = AT_ONCE.get(device.type, AT_ONCE["cpu"])
    if device.type != "cuda":
        return most
    share = torch.cuda.get_device_properties(device).total_memory / ROOMY
    return max(AT_ONCE["cpu"] // 4, min(most, int(most * share)))


def parts(batch: Batch, most: int, besides: int = 0) -> Iterator[Batch]:
    """The batch's rows in groups of at most `most` tokens, a longer row alone.

    `besides`: tokens of each row that are not in the batch (those of its picture).

    Each part has the whole batch's `total`, so that losses and gradients add up to those of the
    whole, and with `share` says how much of its rows it holds. (Hidden states are compared in the
    scale of each part's own, which may differ a little from the whole's.)
    """
    rows, length = batch["input_ids"].shape
    length += besides
    if rows * length <= most:
        yield batch
        return
    weights = batch["weights"][:, 1:]
    ends = [0, *(weights != 0).sum(1).cumsum(0).tolist()]
    total = batch.get("total", weights.sum())
    step = max(1, most // length)
    for first in range(0, rows, step):
        last = min(rows, first + step)
        said = slice(ends[first], ends[last])
        part = {
            name: each[said] if name in SAID else each[first:last]
            for name, each in batch.items()
            if each.dim()
        }
        yield part | {"total": total, "share": total.new_tensor((last - first) / rows)}


__all__ = ["AT_ONCE", "at_once", "parts"]
