"""The verb `eval`: how well a model does a task, and what its answers take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.checkpoint import Checkpoint
    from flyweight.make.bench import Result
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

    Args:
        model: A Hugging Face or Flyweight model folder, or a hub name.
        task: JSONL or Parquet with prompt or messages, and answer.
        score: exact, choice, json, contains, numeric, f1, likelihood, or module:function.
        split: train, dev or test; only its items need answers.
        bits: 16, 8 or 4; what the model's card chose if not given, else 16.

    Returns:
        Score, interval, latency, tokens a second and peak memory.

    Raises:
        FlyweightError: Bad input, or an item without an answer.
    """
    from flyweight.checkpoint import open_checkpoint
    from flyweight.errors import OptionError
    from flyweight.tasks.items import refuse_unanswered
    from flyweight.tasks.read import read_task
    from flyweight.tasks.score import scorer
    from flyweight.tasks.split import SPLITS
    from flyweight.tasks.statistics import mean_interval

    if split not in SPLITS:
        raise OptionError(f"--split is {split!r}: choose train, dev or test.")
    scoring, source = scorer(score), open_checkpoint(model)
    bits = _bits(source, bits)
    asked = read_task(task)
    items = asked.splits[split]
    if scoring.needs_generation:
        refuse_unanswered(items, task, "Add one to each item of " + split)
    result, size = _measure(source, bits, asked, split, scoring)
    interval = mean_interval(result.scores, [item.group for item in items])
    _show(model, bits, split, score, interval, result, size)
    return {
        **vars(interval),
        "bits": bits,
        "bytes": size,
        "latency_p50": result.cost.latency_p50,
        "latency_p95": result.cost.latency_p95,
        "tokens_per_second": result.cost.decode_tokens_per_second,
        "peak_memory": result.cost.peak_memory_bytes,
    }


def _bits(source: Checkpoint, bits: int | None) -> int:
    """The width that was asked for, or that the model's card chose."""
    from flyweight.errors import OptionError
    from flyweight.folder import CARD, GGUF_NAMES, read_card

    if bits is None:
        bits = read_card(source.path).bits if (source.path / CARD).exists() else 16
    if bits not in GGUF_NAMES:
        raise OptionError(f"--bits is {bits}: choose 16, 8 or 4.")
    return bits


def _measure(
    source: Checkpoint, bits: int, task: Task, split: str, scoring: Scorer
) -> tuple[Result, int]:
    """A split scored in the runtime, and the bytes of the file that answered."""
    import tempfile

    from flyweight.folder import GGUF_NAMES, sha256_of
    from flyweight.make.bench import Bench
    from flyweight.make.data import answer_limit, prepare_split
    from flyweight.make.ledger import count_opening
    from flyweight.runtime.gguf import write_gguf
    from flyweight.runtime.rounding import rounded

    tokenizer, gguf_map = source.tokenizer(), source.gguf_map
    part = prepare_split(task.splits[split], task.name, tokenizer, scoring, source.context)
    bench = Bench(tokenizer, scoring, answer_limit([part], scoring))
    with tempfile.TemporaryDirectory() as scratch:
        gguf = source.path / GGUF_NAMES[bits]
        if not gguf.exists():
            gguf = Path(scratch) / gguf.name
            write_gguf(source.path, gguf, bits, gguf_map)
        weights = None if scoring.needs_generation else rounded(source.model(), bits, gguf_map)
        if split == "test":  # a look at test is a look, whoever takes it
            count_opening(task.test_sha256, sha256_of(gguf), f"{scoring.name} eval")
        return bench.run(f"{split} at {bits} bits", gguf, part, weights), gguf.stat().st_size


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
        f"{words.seconds(result.cost.latency_p50)} an answer, "
        f"{words.rate(result.cost.decode_tokens_per_second)} tokens/s"
    )
