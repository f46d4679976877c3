"""The memory and disk that a job needs at its peak."""

from __future__ import annotations

from flyweight.distill.packed import bytes_a_token, kept
from flyweight.distill.teacher import TOP_K
from flyweight.make.course import Course
from flyweight.make.effort import BATCH
from flyweight.make.workload import RANKING, Sizes

LIBRARIES = 650_000_000  # Python, torch, transformers
LONGEST = 1.5  # the tokens of a batch's longest row beside the mean's: all are padded to it
PACKED = 2 + 2 + 1.1 + 0.7  # bytes a parameter: checkpoint and three files
CHECKPOINT = 12.5  # bytes a parameter of a training's last checkpoint: weights and optimiser


def working_memory(sizes: Sizes) -> float:
    """Peak bytes beside LIBRARIES: the teacher in fp32, records, the biggest student in training.

    What an allocator holds of batches that are gone grows with their number, to three times what
    one needs (measured); where it is otherwise, past jobs tell.
    """
    held = 1 + 2 * sizes.steps / (sizes.steps + 30)
    tokens = BATCH * LONGEST * sizes.tokens
    kept = 4.0 * tokens * (sizes.kept + 4 * sizes.vocabulary)  # layers and logits, in fp32
    return 8.0 * sizes.teacher + _records(sizes) + 20.0 * max(sizes.levels) + held * kept


def disk(sizes: Sizes, course: Course) -> float:
    """Bytes of the stages: packed files, the last checkpoint of every training, records."""
    trained = [size for size, share in zip(sizes.levels, course.trained, strict=True) if share]
    packed = [size for size, widths in zip(sizes.levels, course.widths, strict=True) if widths]
    rival = sizes.levels[course.chosen]
    files = PACKED * (sizes.teacher + sum(packed) + rival)
    return files + CHECKPOINT * (sum(trained) + rival) + _records(sizes) + 1_000_000


def _records(sizes: Sizes) -> float:
    """Bytes of what the teacher said about the train items and some of dev."""
    items = sizes.items["train"] + min(RANKING, sizes.items["dev"])
    top, drawn = kept(TOP_K, sizes.vocabulary)
    return items * sizes.tokens * bytes_a_token(top, sizes.vocabulary, drawn)
