"""The verb `distill`: train a student towards a teacher on the user's data."""

from __future__ import annotations

from pathlib import Path


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
    from flyweight.errors import OptionError, TaskError, TeacherError
    from flyweight.folder import check_place, new_folder
    from flyweight.tasks.encode import encode
    from flyweight.tasks.read import read_task

    if not 0 <= kl <= 1:
        raise OptionError(f"--kl is {kl}: give a share from 0 to 1.")
    if steps < 1 or batch_size < 1 or learning_rate <= 0:
        raise OptionError("--steps, --batch-size and --learning-rate must be above 0.")
    big, small = open_checkpoint(teacher), open_checkpoint(student)
    check_place(out)
    items = read_task(data).train
    unanswered = [item for item in items if item.answer is None]
    if unanswered:
        raise TaskError(
            f"{data}, line {unanswered[0].line}: no answer. Add one, or use `flyweight make`, "
            "where the teacher writes what is missing."
        )
    tokenizer = big.tokenizer()
    if small.tokenizer().get_vocab() != tokenizer.get_vocab():
        raise TeacherError(f"{student}: its tokenizer differs from that of {teacher}.")
    examples = [encode(tokenizer, item.messages, item.answer or "") for item in items]
    rows = record_teacher(big.model(), answer_rows(examples))
    model = small.model()
    schedule = Schedule(steps, batch_size, learning_rate, seed=seed)
    train(model, rows, Distillation(kl), schedule, "Distilling")
    with new_folder(out) as folder:
        save_checkpoint(model, tokenizer, folder)
    return out
