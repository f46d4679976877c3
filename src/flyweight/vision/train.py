"""The verb `train-vision`: teach a model's eyes, with the language model frozen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyweight.tasks.items import Task


def train_vision(
    model: Path,
    out: Path,
    *,
    data: Path,
    captions: Path | None = None,
    steps: int = 1000,
    align_steps: int = 500,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    freeze_encoder: bool = False,
    eyes_only: bool = False,
    seed: int = 0,
) -> Path:
    """Train the image encoder and the cross-attention of a model from `add-vision`, nothing else.

    First, where captions are given, pictures are aligned with words, then questions are learned.
    The language model's hash is the same before and after, so that texts are answered as ever. Can
    be stopped at any time: the same command goes on where it was. Writes a Mllama folder.

    Args:
        model: A folder that `flyweight add-vision` made, or an official Mllama checkpoint.
        out: The folder to write.
        data: JSONL or Parquet with image (a path from this file on), prompt or messages, and
            answer; its train items are learned, and dev and test may be absent.
        captions: Likewise, of pictures and what they show: learned first.
        steps: Training steps.
        align_steps: Steps on the captions before.
        batch_size: Pictures in a step, each with all its questions.
        learning_rate: The highest; it falls linearly to zero.
        freeze_encoder: Leave a learned encoder as it is: it looks at each picture once, before the
            first step, and the cross-attention alone learns.
        eyes_only: Write what was trained alone, to be put together with the language model again by
            `flyweight add-vision MODEL OUT --encoder EYES`.
        seed: Makes the run repeatable on the same machine.

    Raises:
        FlyweightError: A model without eyes, bad input, or pictures that cannot be opened.
    """
    from flyweight.distill.trainer import Schedule
    from flyweight.distill.verb import check_training
    from flyweight.errors import OptionError
    from flyweight.folder import check_place
    from flyweight.vision.training import pupil_of

    check_training(steps, batch_size, learning_rate)
    if align_steps < 1:
        raise OptionError(f"--align-steps is {align_steps}: give at least 1.")
    if not 0 <= seed < 2**32:
        raise OptionError(f"--seed is {seed}: give a whole number from 0 on, below 2**32.")
    check_place(out, model)
    lessons = [(data, steps, "Teaching what is asked")]
    if captions is not None:
        lessons.insert(0, (captions, align_steps, "Aligning pictures and words"))
    read = _read([file for file, _, _ in lessons])
    with pupil_of(model, out) as pupil:
        for (file, count, title), (task, pictures) in zip(lessons, read, strict=True):
            schedule = Schedule(count, batch_size, learning_rate, seed=seed)
            pupil.learn(task, file, pictures, schedule, title, freeze_encoder=freeze_encoder)
        pupil.save(out, eyes_only)
    return Path(out)


def _read(files: Sequence[Path]) -> list[tuple[Task, dict[str, str]]]:
    """Tasks whose train items all have answers, with the hashes of their pictures by path.

    Says where a file holds nothing else. TaskError as of `rows.refuse_leaks`.
    """
    from flyweight.progress import say
    from flyweight.tasks.items import refuse_unanswered
    from flyweight.tasks.read import read_task
    from flyweight.vision.rows import refuse_leaks

    read = []
    for file in map(Path, files):
        task = read_task(file, pictures=True, needed=("train",))
        refuse_unanswered(task.train, file, "Add one, or remove the item")
        if not (task.dev or task.test):
            say(f"{file.name}: all of it is learned; no dev or test item is there to try it on.")
        read.append((file, task))
    return [(task, known) for (_, task), known in zip(read, refuse_leaks(read), strict=True)]


__all__ = ["train_vision"]
