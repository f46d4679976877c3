"""How near a student is to its teacher while it still learns: read in torch on a sample of dev.

Every token of an answer is judged with the wanted ones before it given (teacher forcing), which for
exact answers equals writing them out and for other scores is a hopeful estimate. It steers the
search; what is reported is measured in the runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from flyweight.distill.resume import Reading
from flyweight.distill.trainer import fast_math
from flyweight.make.data import Split
from flyweight.runtime.forced import answer_bits, answer_logits
from flyweight.tasks.score import Scorer

SAMPLE = 200  # dev items
BATCH = 64
FRACTIONS = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1)  # of the steps


def probe_steps(full_steps: int) -> frozenset[int]:
    """The steps after which a student is read."""
    return frozenset(max(1, round(full_steps * fraction)) for fraction in FRACTIONS)


def sample_of(split: Split) -> list[int]:
    """At most SAMPLE places, spread evenly."""
    count = min(SAMPLE, len(split))
    return [place * len(split) // count for place in range(count)]


def share_reader(
    split: Split, teacher_scores: np.ndarray, scorer: Scorer, tokenizer: Any
) -> Callable[[Any], Reading]:
    """A function that reads a model's `score`, and the `share` of the teacher's that it is.

    `teacher_scores` [n] are those of the whole split. Of likelihood the score is bits a byte.
    """
    places = sample_of(split)
    pairs = [split.pairs[place] for place in places]
    wanted = [split.answers[place] for place in places]
    if not scorer.needs_generation:
        sizes = split.answer_bytes[places]
        scale = split.answer_bytes.mean()
        teacher_bits = teacher_scores[places].sum() * scale / sizes.sum()
    else:
        teacher_bits = 0.0
        sizes = np.ones(len(places))
    teacher = max(float(teacher_scores[places].mean()), 1e-9)

    @torch.inference_mode()
    def read(model: Any) -> Reading:
        if not scorer.needs_generation:
            bits = answer_bits(model, pairs, title="").sum() / sizes.sum()
            return {"score": float(bits), "share": float(teacher_bits / bits)}
        scores = np.zeros(len(pairs))
        with fast_math(next(model.parameters())):
            for place, logits, ids in answer_logits(model, pairs, BATCH, title=""):
                said = logits.argmax(-1)
                if scorer.teacher_forced:
                    scores[place] = float(torch.equal(said, ids))
                else:
                    text = tokenizer.decode(said, skip_special_tokens=True)
                    scores[place] = scorer(text, wanted[place])
        return {"score": float(scores.mean()), "share": float(scores.mean()) / teacher}

    return read
