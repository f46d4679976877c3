"""The memory and disk that a job needs at its peak."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from flyweight.checkpoint import MAPPED
from flyweight.distill.chunked import CHUNK_BYTES
from flyweight.distill.packed import bytes_a_token, kept
from flyweight.distill.parts import AT_ONCE
from flyweight.distill.teacher import TOP_K
from flyweight.errors import OptionError
from flyweight.make import words
from flyweight.make.course import Course
from flyweight.make.effort import BATCH
from flyweight.make.plan_here import memory_here
from flyweight.make.workload import RANKING, Sizes
from flyweight.mapped import ROOM

LIBRARIES = 650_000_000  # Python, torch, transformers
# Measured over hundreds of steps: code that is made for each size that is multiplied, and what an
# allocator holds of batches that are gone.
CODE = 500_000_000
HELD = 1.5
PACKED = 2 + 2 + 1.1 + 0.7 + 0.6  # bytes a parameter: checkpoint and four files
CHECKPOINT = 12.5  # bytes a parameter of a training's last checkpoint: weights and optimiser
START = 4.0  # bytes a parameter of a mended student, before it is trained


def working_memory(sizes: Sizes) -> float:
    """Peak bytes beside LIBRARIES: the teacher, records, the biggest student in training.

    A batch of the longest rows decides, of which so many tokens are worked on at once (parts.py).
    """
    tokens = min(BATCH * sizes.longest, max(sizes.longest, AT_ONCE["cpu"]))
    logits = min(CHUNK_BYTES, 4.0 * tokens * sizes.vocabulary)
    batch = 4.0 * tokens * sizes.kept + 4 * logits
    held = sum(_held(sizes)) + 20.0 * max(sizes.levels)
    return held + mapped_memory(sizes) + _records(sizes) + CODE + HELD * batch


def _held(sizes: Sizes) -> Iterator[float]:
    """Bytes of teachers that give way to nothing."""
    if not sizes.mapped:
        yield 8.0 * sizes.teacher
    else:
        yield 4.0 * ROOM
        if not sizes.generates:  # the teacher of few bits is read in fp32
            yield 4.0 * sizes.teacher
    if not (sizes.mapped and sizes.trimmed >= MAPPED):
        yield 4.0 * sizes.trimmed


def mapped_memory(sizes: Sizes) -> float:
    """Bytes of a teacher's files and the engine's, which give way where memory is short."""
    return 4.0 * sizes.teacher if sizes.mapped else 0.0


def memory_warnings(needed: float) -> list[str]:
    """What to say where this machine has less memory than so many bytes, a line."""
    with suppress(OptionError):  # some do not tell
        if needed > (there := memory_here()):
            said = f"it needs about {words.size(needed)} of memory; this machine has"
            advice = "--max-parameters leaves big students out."
            return [f"{said} {words.size(there)}, and may end it. {advice}"]
    return []


def disk(sizes: Sizes, course: Course) -> float:
    """Bytes of the stages: packed files, the last checkpoint of every training, records."""
    trained = [size for size, share in zip(sizes.levels, course.trained, strict=True) if share]
    packed = [size for size, widths in zip(sizes.levels, course.widths, strict=True) if widths]
    rival = sizes.levels[course.chosen]
    files = PACKED * (sizes.teacher + sizes.trimmed + sum(packed) + rival)
    trainings = CHECKPOINT * (sum(trained) + rival) + START * sum(trained)
    return files + trainings + _records(sizes) + sizes.pictures + 1_000_000


def passing_disk(sizes: Sizes) -> float:
    """Bytes that are needed for a while besides: a checkpoint while it replaces the one before, and
    the model folder while one of an earlier run is still there.
    """
    return (CHECKPOINT + PACKED) * max(sizes.levels)


def _records(sizes: Sizes) -> float:
    """Bytes of what the teacher said about the train items and some of dev; of pictures nothing."""
    if sizes.pictures:
        return 0.0
    items = sizes.items["train"] + min(RANKING, sizes.items["dev"])
    top, drawn = kept(TOP_K, sizes.vocabulary)
    return items * sizes.tokens * bytes_a_token(top, sizes.vocabulary, drawn)
