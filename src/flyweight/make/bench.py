"""Scoring a packed model on a split, in the runtime that will serve it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.make.data import Split
from flyweight.make.form import Cost, Form
from flyweight.progress import bar
from flyweight.tasks.score import Scorer

LIKELIHOOD_PROMPTS = 100  # answered for the figures alone, where the score needs no answers


@dataclass(frozen=True)
class Result:
    """One model on one split: a score for each item [n], its answers, and what they took.

    For likelihood a score is the item's bits over the bytes of an average item (less is better), so
    that the mean is all bits over all bytes; over a part of the items it is the sum of scores over
    the sum of the split's `byte_shares`. `answers` are then empty.
    """

    scores: np.ndarray
    answers: list[str]
    cost: Cost


@dataclass(frozen=True)
class Bench:
    """How answers are made and scored: the same for the teacher and for every student."""

    form: Form
    scorer: Scorer
    max_tokens: int

    def run(self, name: str, file: Path, split: Split, model: Any = None) -> Result:
        """Answer and score `split` with one of a model's files.

        `model` is the same weights in torch, needed for likelihood, which llama.cpp cannot tell.
        """
        prompts = split.prompts
        if not self.scorer.needs_generation:
            prompts = prompts[:LIKELIHOOD_PROMPTS]
        with bar(f"Measuring {name}", len(prompts)) as running:
            said = self.form.answers(file, prompts, self.max_tokens, running.advance)
        if not self.scorer.needs_generation:
            return Result(bits_per_byte(model, split), [], said.cost)
        scores, wanted = np.zeros(len(split)), split.answers
        for places in split.by_task.values():
            scores[places] = self.scorer.scores(
                [said.texts[place] for place in places], [wanted[place] for place in places]
            )
        return Result(scores, said.texts, said.cost)


def bits_per_byte(model: Any, split: Split) -> np.ndarray:
    """float [n], whose mean is the bits a byte over the whole split."""
    from flyweight.runtime.forced import answer_bits

    return answer_bits(model, split.pairs) / split.answer_bytes.mean()
