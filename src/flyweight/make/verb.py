"""The verb `make`: the main job, from a teacher and a task to a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def make(
    teacher: str,
    *,
    task: Path | Sequence[Path],
    out: Path | None = None,
    bar: float = 0.95,
    bar_absolute: float | None = None,
    score: str = "exact",
    by: str = "bytes",
    effort: str = "standard",
    budget: str | None = None,
    max_parameters: str | None = None,
    max_memory: str | None = None,
    max_latency: str | None = None,
    min_speed: float | None = None,
    device: str = "this",
    steps: int | None = None,
    machine: str = "this",
    country: str | None = None,
    dry_run: bool = False,
    seed: int = 0,
) -> Path:
    """Make the smallest model that still does your task, with proof that it does.

    Cuts the teacher to many shapes, distils them back on your own task and drops those that lag,
    packs the best at several bits (GGUF files of a model that writes, ONNX files of an encoder that
    classifies, safetensors of one with eyes), measures them in the runtime, and tries the smallest
    that passes on dev once on test. Where the task leaves many tokens unused, they are left out.
    Says first what that will take. It can be stopped at any moment: the same command goes on where
    it was, and another bar uses all that is known. What is known lies beside the model folder, in
    one that ends in `.work`. Returns the model folder; its `card.json` holds the verdict.

    Args:
        teacher: A Hugging Face model folder, or a hub name.
        task: JSONL or Parquet with prompt or messages, answer, and optionally slice, group, split;
            an encoder's answers are its labels, and of a model with eyes each item has an image.
            Repeat the option for several tasks: the bar holds on each.
        out: The model folder to write; out/ and the name of the task's file if not given (several
            names joined by +), unless a model of another teacher or task is there.
        bar: The share of the teacher's score that is good enough.
        bar_absolute: A bar in the score's own range instead, such as 0.9 of exact.
        score: exact, choice, json, contains, numeric, f1, likelihood, accuracy, macro-f1, or
            module:function.
        by: What smallest means: bytes, latency or memory.
        effort: quick, standard or thorough: how many shapes are tried, and how long.
        budget: The most that the model's file may take, such as 2MB; no limit if not given.
        max_parameters: The most parameters, such as 800k or 1.5M.
        max_memory: The most memory that the process may take at its peak, such as 64MB.
        max_latency: The most that 95 % of the answers may take, such as 20ms; without a unit,
            seconds.
        min_speed: The least tokens a second in one stream; of an encoder, texts a second, one at a
            time.
        device: Whose latency, speed and memory count: this, or a profile that `flyweight device`
            wrote elsewhere, by which they are then foretold. On this machine they are foretold to
            search, and measured to choose.
        steps: Distillation steps of a shape; chosen from the task's size if not given.
        machine: Whose speed the quote is for: this, laptop, a100-80, h100, or a file that was
            copied from `machines` in another machine's state folder. With --dry-run.
        country: Whose grid the carbon of quote and sticker is of, such as FRA (ISO 3166, three
            letters); FLYWEIGHT_COUNTRY if not given, else the carbon is a range.
        dry_run: Print the quote and stop.
        seed: Makes the run repeatable on the same machine.

    Raises:
        FlyweightError: Bad input, a teacher that cannot be used, or a full disk.
    """
    from flyweight.errors import OptionError
    from flyweight.make.budget import read_budgets
    from flyweight.make.options import check_options
    from flyweight.make.run import prepare_job, run_job
    from flyweight.make.show_quote import show_quote

    budgets = read_budgets(budget, max_parameters, max_memory, max_latency, min_speed)
    options = check_options(
        teacher, task, out, bar, bar_absolute, score, by, effort, budgets, steps, seed, device,
        country,
    )  # fmt: skip
    if machine != "this" and not dry_run:
        raise OptionError(f"--machine {machine} is for a quote alone: add --dry-run.")
    plan = prepare_job(options, machine)
    show_quote(plan.quote, plan.warnings)
    if not dry_run:
        run_job(plan)
    return options.out
