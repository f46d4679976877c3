"""How near a student is to its teacher while it still learns: read in torch on a sample of dev.

Of one that writes, every token of an answer is judged with the wanted ones before it given (teacher
forcing), which for exact answers equals writing them out and for other scores is a hopeful
estimate. It steers the search; what is reported is measured in the runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from flyweight.distill.resume import Reading
from flyweight.make.data import Split
from flyweight.tasks.score import Scorer

if TYPE_CHECKING:
    from flyweight.make.bench import Result

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


def share_of(
    teacher: Result, split: Split, scorer: Scorer, read: Callable[[Any], tuple[float, float]]
) -> Callable[[Any], Reading]:
    """A function that tells what `read` gives of a model, and what share of the teacher's that is.

    `teacher` is what it answered to the whole split; `read` tells the score on its sample, and the
    cross-entropy of its wanted answers in nats: a token, or a label.
    """
    places = sample_of(split)
    said = [teacher.answers[place] for place in places]
    of_teacher = scorer.scores(said, [split.answers[place] for place in places]).mean()
    least = max(float(of_teacher), 1e-9)

    @torch.inference_mode()
    def reading(model: Any) -> Reading:
        score, nats = read(model)
        return {"score": score, "share": score / least, "nats": nats}

    return reading
