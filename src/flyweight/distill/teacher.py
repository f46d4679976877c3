"""What the teacher says about each answer, run once and kept: every candidate learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from flyweight.distill.losses import wanted_logits
from flyweight.distill.trainer import Row, collate, fast_math
from flyweight.progress import track
from flyweight.tasks.encode import Example

TOP_K = 64
LOGITS_AT_ONCE = 2**28  # numbers, 1 GiB in fp32
PROMPT_WEIGHT = 0.2  # of a prompt token: without it a small task is learned by heart (see LOG.md)


def answer_rows(examples: Sequence[Example], prompt_weight: float = PROMPT_WEIGHT) -> list[Row]:
    """Training rows: each answer token at weight 1, each prompt token at `prompt_weight`."""
    rows = []
    for example in examples:
        weights = np.ones(len(example), dtype=np.float32)
        weights[: example.prompt_length] = prompt_weight
        rows.append({"input_ids": example.ids, "weights": weights})
    return rows


@torch.inference_mode()
def record_teacher(
    teacher: Any, rows: Sequence[Row], top_k: int = TOP_K, batch_size: int = 32
) -> list[Row]:
    """The rows with the teacher's `top` log-probabilities and `indices` (both [N, k]) added.

    Half precision suffices: an error of 2^-11 relative in a log-probability is far below the
    noise of a training step. Takes about 6 bytes x k a token.
    """
    longest = max(len(row["input_ids"]) for row in rows)
    fitting = LOGITS_AT_ONCE // (longest * teacher.config.vocab_size)
    batch_size = max(1, min(batch_size, fitting))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    recorded: list[Row] = [{} for _ in rows]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    for places in track(batches, "Recording the teacher"):
        batch_rows = [rows[i] for i in places]
        batch = collate(batch_rows)
        with fast_math(batch["input_ids"]):
            logits, _, _ = wanted_logits(teacher, batch)
        top = logits.log_softmax(-1).topk(min(top_k, logits.shape[-1]), dim=-1)
        counts = [int((row["weights"][1:] != 0).sum()) for row in batch_rows]
        values, indices = top.values.half().split(counts), top.indices.int().split(counts)
        for row, place in enumerate(places):
            said = {"top": values[row].clone(), "indices": indices[row].clone()}
            recorded[place] = rows[place] | said
    return recorded
