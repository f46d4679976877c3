"""`distill` for encoders: a student learns which label its teacher gives a text, and how surely.

Each model reads a text in its own tokens, so that a student whose vocabulary was cut needs nothing
more. The teacher runs once over the train items.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flyweight.checkpoint import Checkpoint, save_checkpoint
from flyweight.distill.labels import LabelDistillation, ask_labels, label_rows, with_said
from flyweight.distill.objectives import ANSWERS, Aim
from flyweight.distill.trainer import Row, Schedule, train
from flyweight.errors import OptionError, TeacherError
from flyweight.folder import new_folder
from flyweight.tasks.items import Item, Task, refuse_unanswered
from flyweight.tasks.labels import label_items


def distill_labels(
    big: Checkpoint, small: Checkpoint, out: Path, task: Task | None, aim: Aim, schedule: Schedule
) -> Path:
    """Train the student on the task's train items, and write it to `out`.

    Items without an answer count by what the teacher says alone. Raises OptionError for what only
    models that write have, TeacherError where the labels of the two differ.
    """
    if task is None:
        raise OptionError(f"{big.name} gives texts labels: --data is needed, corpora have none.")
    check_aim(aim, big)
    check_labels(big, small)
    if not aim.blend.share:
        refuse_unanswered(task.train, Path(task.name), "Add one, or give another --loss")
    rows = labelled_rows(small, task.train, task.name)
    model, tokenizer = small.model(), small.tokenizer()
    if aim.blend.share:
        rows = with_said(rows, ask_labels(big.frozen(), labelled_rows(big, task.train, task.name)))
    train(model, rows, LabelDistillation(aim.blend.share), schedule, "Distilling")
    with new_folder(out) as folder:
        save_checkpoint(model, tokenizer, folder)
    return out


def labelled_rows(source: Checkpoint, items: Sequence[Item], name: str) -> list[Row]:
    """The items as rows of that model; TeacherError where its tokenizer has tokens that it has not.

    `name` is the task's.
    """
    examples = label_items(source.tokenizer(), items, name, source.context, source.labels)
    highest = max((int(example.ids.max()) for example in examples), default=0)
    if highest >= source.shape.vocabulary:
        raise TeacherError(
            f"{source.name}: {name} holds the token {highest} and the model has "
            f"{source.shape.vocabulary} embeddings. Use the model's own tokenizer."
        )
    return label_rows(examples)


def check_aim(aim: Aim, source: Checkpoint) -> None:
    """OptionError for what an encoder cannot be trained towards."""
    if aim.live or (aim.loss != ANSWERS and aim.blend.beta):
        raise OptionError(
            f"{source.name} gives texts labels: --loss is forward-kl or {ANSWERS}, without "
            "--temperature, --match-hidden and --on-policy."
        )


def check_labels(big: Checkpoint, small: Checkpoint) -> None:
    """TeacherError unless the two have the same labels."""
    if small.family.causal or small.labels != big.labels:
        raise TeacherError(
            f"{small.name}: its labels are not those of {big.name}. Use a student that was made "
            "from this teacher."
        )


__all__ = ["distill_labels", "labelled_rows"]
