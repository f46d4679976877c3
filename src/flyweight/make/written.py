"""The verb `write-data`: where a task has few items, its teacher writes more."""

from __future__ import annotations

from pathlib import Path


def write_data(
    teacher: str,
    out: Path,
    *,
    task: Path,
    items: int = 1000,
    seed: int = 0,
    temperature: float = 0.8,
    way: str = "best",
    score: str = "exact",
) -> Path:
    """Let the teacher write new train items for a task that has few, and keep the good ones.

    It writes prompts like the task's own and answers them. Kept is what is whole, new, surely
    answered, and far from every dev and test item. Writes a JSONL file that holds the task's items
    as well, each in its split. It can be stopped at any moment: the same command goes on where it
    was. What is known lies beside the file, in a folder that ends in `.work`.

    Args:
        teacher: A Hugging Face model folder, or a hub name.
        out: The JSONL file to write.
        task: JSONL or Parquet with the few items that there are; without a field split it is split.
        items: How many new items are wanted.
        seed: Makes the run repeatable on the same machine, but for near ties where a large teacher
            writes several at a time.
        temperature: Of the drawing of prompts; answers are the likeliest ones.
        way: How prompts are drawn: own, as the teacher begins one; continued, from a part of a
            known one; examples, after a list of some; taught, by a copy that was trained on them;
            or best, the one of which most survive.
        score: What makes an answer on dev right, to know how sure the teacher must be; as for make.

    Raises:
        FlyweightError: Bad input, a task whose train and test overlap, or a teacher that writes
            nothing of use.
    """
    from flyweight.make.writing import Request, write

    return write(Request(teacher, Path(out), Path(task), items, seed, temperature, way, score))
