"""The verb `distill`: train a student towards a teacher on the user's data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.checkpoint import Checkpoint

_ANSWER_MISSING = "Add one, or use `flyweight make`, where the teacher writes what is missing"


def distill(
    teacher: str,
    student: str,
    out: Path,
    *,
    data: Path,
    steps: int = 500,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    kl: float = 0.7,
    seed: int = 0,
) -> Path:
    """Train a student to answer as its teacher does, on the train items of your data.

    The loss is `kl` times the forward KL from the teacher plus the rest as cross-entropy on the
    answers. Writes a Hugging Face folder.

    Args:
        teacher: A Hugging Face model folder, or a hub name.
        student: Likewise; it must have the teacher's tokenizer.
        out: The folder to write.
        data: JSONL or Parquet with prompt or messages, and answer.
        steps: Training steps.
        batch_size: Items in a step.
        learning_rate: The highest; it falls linearly to zero.
        kl: The share of the teacher in the loss, 0 to 1.
        seed: Makes the run repeatable on the same machine.

    Raises:
        FlyweightError: Bad input, or a tokenizer that differs from the teacher's.
    """
    from flyweight.checkpoint import open_checkpoint, save_checkpoint
    from flyweight.distill.losses import Distillation
    from flyweight.distill.teacher import answer_rows, record_teacher
    from flyweight.distill.trainer import Schedule, train
    from flyweight.folder import check_place, new_folder
    from flyweight.tasks.encode import encode_items
    from flyweight.tasks.items import refuse_unanswered
    from flyweight.tasks.read import read_task

    _check_options(steps, batch_size, learning_rate, kl)
    big, small = open_checkpoint(teacher), open_checkpoint(student)
    check_place(out)
    task = read_task(data)
    refuse_unanswered(task.train, data, _ANSWER_MISSING)
    tokenizer = big.tokenizer()
    _check_pair(big, tokenizer, small, [item.answer or "" for item in task.train])
    examples = encode_items(tokenizer, task.train, task.name, big.context)
    rows = record_teacher(big.model(), answer_rows(examples))
    model = small.model()
    schedule = Schedule(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    train(model, rows, Distillation(kl), schedule, "Distilling")
    with new_folder(out) as folder:
        save_checkpoint(model, tokenizer, folder)
    return out


def _check_options(steps: int, batch_size: int, learning_rate: float, kl: float) -> None:
    from flyweight.errors import OptionError

    if not 0 <= kl <= 1:
        raise OptionError(f"--kl is {kl}: give a share from 0 to 1.")
    if steps < 1 or batch_size < 1 or not 0 < learning_rate < math.inf:
        raise OptionError("--steps, --batch-size and --learning-rate must be above 0.")


def _check_pair(big: Checkpoint, tokenizer: Any, small: Checkpoint, texts: list[str]) -> None:
    """TeacherError unless the student speaks its teacher's tokens; `tokenizer` is the teacher's."""
    from flyweight.errors import TeacherError

    if not _same_tokens(tokenizer, small.tokenizer(), texts):
        raise TeacherError(
            f"{small.name}: its tokenizer differs from that of {big.name}. Use a student that was "
            "made from this teacher."
        )
    if small.shape.vocabulary != big.shape.vocabulary:
        raise TeacherError(
            f"{small.name}: it has {small.shape.vocabulary} embeddings, {big.name} has "
            f"{big.shape.vocabulary}. Use a student that was made from this teacher."
        )


def _same_tokens(one: Any, other: Any, texts: Sequence[str]) -> bool:
    """Whether two tokenizers have the same vocabulary and cut these texts alike."""
    if one.get_vocab() != other.get_vocab():
        return False
    mine, yours = (
        each(list(texts), add_special_tokens=False)["input_ids"] for each in (one, other)
    )
    return mine == yours
