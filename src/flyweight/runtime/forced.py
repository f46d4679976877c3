"""Scoring known answers in torch, in batches, without generating.

Greedy decoding gives exactly the wanted answer if and only if, with the answer given, the most
likely token is the right one at every position: one forward pass instead of one a token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flyweight.anatomy import logits_from_hidden
from flyweight.placed import placed
from flyweight.progress import track

Pair = tuple[list[int], list[int]]  # ids of the prompt, ids of the answer with its end


def answer_logits(
    model: Any, pairs: Sequence[Pair], batch_size: int, title: str
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(place in `pairs`, logits float32 [A, V], answer ids [A]) for every pair, in any order.

    On the accelerator (placed.py); without a `title` no bar is shown.
    """
    order = sorted(range(len(pairs)), key=lambda i: sum(map(len, pairs[i])))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    with placed(model):
        device = next(model.parameters()).device
        for places in track(batches, title) if title else batches:
            rows = [pairs[i][0] + pairs[i][1] for i in places]
            longest = max(map(len, rows))
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows]).to(device)
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state  # [B, T, D]
            for row, place in enumerate(places):
                prompt, answer = pairs[place]
                span = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
                logits = logits_from_hidden(model, hidden[row, span]).float()
                yield place, logits, ids[row, len(prompt) : len(prompt) + len(answer)]


@torch.inference_mode()
def greedy_matches(
    model: Any, pairs: Sequence[Pair], batch_size: int = 64, title: str = "Checking answers"
) -> np.ndarray:
    """bool [n]: would greedy decoding give exactly this answer?"""
    right = np.zeros(len(pairs), dtype=bool)
    for place, logits, wanted in answer_logits(model, pairs, batch_size, title):
        right[place] = bool((logits.argmax(-1) == wanted).all())
    return right


@torch.inference_mode()
def answer_bits(
    model: Any, pairs: Sequence[Pair], batch_size: int = 64, title: str = "Measuring likelihood"
) -> np.ndarray:
    """float [n]: bits that the model needs for each answer, given its prompt."""
    bits = np.zeros(len(pairs))
    for place, logits, wanted in answer_logits(model, pairs, batch_size, title):
        bits[place] = float(F.cross_entropy(logits, wanted, reduction="sum")) / math.log(2)
    return bits
