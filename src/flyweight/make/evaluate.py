"""The verb `eval`: how well a model does a task, and what its answers take."""

from __future__ import annotations

from pathlib import Path
from typing import Any


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
        split: train, dev or test.
        bits: 16, 8 or 4; what the model's card chose if not given, else 16.

    Returns:
        Score, interval, latency, tokens a second and peak memory.

    Raises:
        FlyweightError: Bad input, or an item without an answer.
    """
    import tempfile

    from rich.console import Console

    from flyweight.checkpoint import open_checkpoint
    from flyweight.errors import OptionError, TaskError
    from flyweight.folder import CARD, GGUF_NAMES, read_card, sha256_of
    from flyweight.make import words
    from flyweight.make.bench import Bench
    from flyweight.make.data import prepare
    from flyweight.make.ledger import count_opening
    from flyweight.runtime.gguf import write_gguf
    from flyweight.runtime.rounding import rounded
    from flyweight.tasks.read import read_task
    from flyweight.tasks.score import scorer
    from flyweight.tasks.statistics import mean_interval

    if split not in ("train", "dev", "test"):
        raise OptionError(f"--split is {split!r}: choose train, dev or test.")
    scoring, source, items = scorer(score), open_checkpoint(model), read_task(task)
    if bits is None:
        bits = read_card(source.path).bits if (source.path / CARD).exists() else 16
    if bits not in GGUF_NAMES:
        raise OptionError(f"--bits is {bits}: choose 16, 8 or 4.")
    gguf_map = source.gguf_map

    def refuse(prompts: list[list[int]], _: int) -> list[str]:
        raise TaskError(f"{task}: {len(prompts)} items have no answer to compare with. Add them.")

    tokenizer = source.tokenizer()
    data = prepare(items, tokenizer, scoring, source.context, refuse)
    part = data.splits[split]
    bench = Bench(tokenizer, scoring, data.max_tokens)
    with tempfile.TemporaryDirectory() as scratch:
        gguf = source.path / GGUF_NAMES[bits]
        if not gguf.exists():
            gguf = Path(scratch) / gguf.name
            write_gguf(source.path, gguf, bits, gguf_map)
        weights = None if scoring.needs_generation else rounded(source.model(), bits, gguf_map)
        if split == "test":  # a look at test is a look, whoever takes it
            count_opening(items.test_sha256, sha256_of(gguf), f"{score} eval")
        result = bench.run(f"{split} at {bits} bits", gguf, part, weights)
        size = gguf.stat().st_size
    interval = mean_interval(result.scores, part.groups)
    Console().print(
        f"{model} at {bits} bits on {interval.n:,} {split} items of {interval.groups:,} groups: "
        f"{words.score(interval.mean, score)} ({words.percent(interval.low)} to "
        f"{words.percent(interval.high)}), {words.size(size)}, "
        f"{words.seconds(result.cost.latency_p50)} an answer, "
        f"{words.rate(result.cost.decode_tokens_per_second)} tokens/s"
    )
    return {
        **vars(interval),
        "bits": bits,
        "bytes": size,
        "latency_p50": result.cost.latency_p50,
        "latency_p95": result.cost.latency_p95,
        "tokens_per_second": result.cost.decode_tokens_per_second,
        "peak_memory": result.cost.peak_memory_bytes,
    }
