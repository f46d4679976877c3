"""The verb `make`: the main job, from a teacher and a task to a model folder."""

from __future__ import annotations

from pathlib import Path


def make(
    teacher: str,
    *,
    task: Path,
    out: Path = Path("out"),
    bar: float = 0.95,
    bar_absolute: float | None = None,
    score: str = "exact",
    by: str = "bytes",
    steps: int | None = None,
    seed: int = 0,
) -> Path:
    """Make the smallest model that still does your task, with proof that it does.

    Cuts the teacher, distils it back on your own task, packs it at 16, 8 and 4 bits, measures
    every candidate in the runtime, and tries the smallest that passes on dev once on test.
    Returns the model folder; its `card.json` holds the verdict.

    Args:
        teacher: A Hugging Face model folder, or a hub name.
        task: JSONL or Parquet with prompt or messages, answer, and optionally slice, group, split.
        out: The model folder to write.
        bar: The share of the teacher's score that is good enough.
        bar_absolute: A bar in the score's own range instead.
        score: exact, choice, json, contains, numeric, f1, likelihood, or module:function.
        by: What smallest means: bytes, latency or memory.
        steps: Distillation steps for each candidate; chosen from the task's size if not given.
        seed: Makes the run repeatable on the same machine.

    Raises:
        FlyweightError: Bad input, a teacher that cannot be used, or a full disk.
    """
    import tempfile

    from flyweight.checkpoint import open_checkpoint
    from flyweight.folder import check_place, check_space, disk_errors
    from flyweight.make.handover import hand_over
    from flyweight.make.job import Job
    from flyweight.make.judge import try_on_test
    from flyweight.make.options import check_options
    from flyweight.make.show import show_result
    from flyweight.make.students import choose
    from flyweight.tasks.read import read_task
    from flyweight.tasks.score import scorer

    options = check_options(teacher, task, out, bar, bar_absolute, score, by, steps, seed)
    scoring = scorer(score)
    check_place(options.out)
    source = open_checkpoint(teacher)
    check_space(options.out, 7 * source.bytes)
    items = read_task(task)
    with disk_errors(options.out):
        options.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with (
        disk_errors(options.out),
        tempfile.TemporaryDirectory(
            prefix=".flyweight-", dir=options.out.absolute().parent
        ) as scratch,
    ):
        job = Job(options, source, items, scoring, Path(scratch))
        found = job.run()
        chosen = choose(found.candidates, options)
        with job.clock.stage("test"):
            trial = try_on_test(job, found, chosen)
        card = hand_over(job, found, chosen, trial)
    show_result(card, options.out)
    return options.out
