"""The verb `eval`: how well a model does a task, and what its answers take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.make.bench import Result
    from flyweight.make.form import Form
    from flyweight.tasks.items import Task
    from flyweight.tasks.score import Scorer
    from flyweight.tasks.statistics import Interval


def eval(
    model: str,
    *,
    task: Path,
    score: str = "exact",
    split: str = "test",
    bits: int | None = None,
) -> dict[str, Any]:
    """Score a model on a task, in the runtime, with an interval over groups.

    A look at test is counted, once for each model and score: what `make` tries on the same test
    items afterwards needs stronger evidence.

    Args:
        model: A Hugging Face or Flyweight model folder, or a hub name.
        task: JSONL or Parquet with prompt or messages, and answer, for a model with eyes image too.
        score: exact, choice, json, contains, numeric, f1, likelihood, accuracy, macro-f1, or
            module:function.
        split: train, dev or test; only its items need answers.
        bits: 16, 8, 5 or 4, of an encoder 32, 16 or 8, of a model with eyes 16 or 8; what the
            model's card chose if not given, else the most.

    Returns:
        Score, interval, latency, tokens (of an encoder, texts) a second and peak memory.

    Raises:
        FlyweightError: Bad input, or an item without an answer.
    """
    from flyweight.checkpoint import open_checkpoint
    from flyweight.errors import OptionError
    from flyweight.make.form import form_of
    from flyweight.progress import say
    from flyweight.tasks.enough import check_labels
    from flyweight.tasks.items import refuse_unanswered
    from flyweight.tasks.read import read_task
    from flyweight.tasks.score import scorer
    from flyweight.tasks.split import SPLITS
    from flyweight.tasks.statistics import mean_interval

    if split not in SPLITS:
        raise OptionError(f"--split is {split!r}: choose train, dev or test.")
    scoring, form = scorer(score), form_of(open_checkpoint(model, pictures=True))
    form.check(scoring)
    bits = _bits(form, bits)
    asked = read_task(task, pictures=form.source.family.pictures)
    items = asked.splits[split]
    if scoring.needs_generation:
        refuse_unanswered(items, task, "Add one to each item of " + split)
    for warning in check_labels(items, f"{asked.name}: {split}", scoring, chosen=form.chooses):
        say(warning)
    result, size = _measure(form, bits, asked, split, scoring)
    interval = mean_interval(result.scores, [item.group for item in items])
    _show(model, bits, split, score, interval, result, size)
    return {
        **vars(interval),
        "bits": bits,
        "bytes": size,
        "latency_p50": result.cost.latency_p50,
        "latency_p95": result.cost.latency_p95,
        "tokens_per_second": result.cost.tokens_per_second,
        "texts_per_second": result.cost.texts_per_second,
        "peak_memory": result.cost.peak_memory_bytes,
    }


def _bits(form: Form, bits: int | None) -> int:
    """The width that was asked for, or that the model's card chose."""
    from flyweight.errors import OptionError
    from flyweight.folder import CARD, read_card

    if bits is None:
        path = form.source.path
        bits = read_card(path).bits if (path / CARD).exists() else next(iter(form.files))
    if bits not in form.files:
        *others, last = map(str, form.files)
        raise OptionError(f"--bits is {bits}: choose {', '.join(others)} or {last}.")
    return bits


def _measure(form: Form, bits: int, task: Task, split: str, scoring: Scorer) -> tuple[Result, int]:
    """A split scored in the runtime, and the bytes of the file that answered."""
    import tempfile

    from flyweight.folder import sha256_of
    from flyweight.make.bench import Bench
    from flyweight.make.data import prepare_split
    from flyweight.make.openings import count_opening

    part = prepare_split(task.splits[split], task.name, form, scoring)
    bench = Bench(form, scoring, form.answer_limit([part], scoring))
    with tempfile.TemporaryDirectory() as scratch:
        file = form.file(bits, Path(scratch))
        load = form.rounded(form.source.path, file)
        weights = load() if load and not scoring.needs_generation else None
        if split == "test":  # a look at test is a look, whoever takes it
            count_opening(task.test_sha256, sha256_of(file), f"{scoring.name} eval")
        return bench.run(f"{split} at {bits} bits", file, part, weights), file.stat().st_size


def _show(
    model: str, bits: int, split: str, score: str, interval: Interval, result: Result, size: int
) -> None:
    """What was found, in one line."""
    from rich.console import Console

    from flyweight.card import Score
    from flyweight.make import words

    Console(markup=False, emoji=False).print(
        f"{model} at {bits} bits on {interval.n:,} {split} items of {interval.groups:,} groups: "
        f"{words.score(interval.mean, score)} "
        f"({words.score_interval(Score(**vars(interval)), score)}), {words.size(size)}, "
        f"{words.seconds(result.cost.latency_p50)} an answer, {words.speed(result.cost)} "
        f"{'tokens' if result.cost.texts_per_second is None else 'texts'}/s"
    )
