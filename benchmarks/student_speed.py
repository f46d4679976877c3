"""How fast does the chosen student write in one stream, and are its answers those of transformers?

    make demo
    python benchmarks/student_speed.py out/demo --task out/demo-task.jsonl

In one run, in turn: llama.cpp on each GGUF file with one and with two threads, and transformers in
fp32 as the peer, all greedy on the same prompts. Prints tokens a second (those written after the
first), the median of the rounds with its range, and the answers that differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from flyweight.checkpoint import Checkpoint, open_checkpoint
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.parity import compare
from flyweight.tasks.encode import prompt_ids
from flyweight.tasks.read import read_task

PROMPTS, ROUNDS, LONGEST = 100, 7, 64


def llama_cpp(gguf: Path, threads: int, prompts: list[list[int]]) -> Callable[[], float]:
    """A round with llama.cpp: tokens a second, as the engine counts, over all prompts."""
    engine = LlamaEngine(gguf, context=max(map(len, prompts)) + LONGEST, threads=threads)
    engine.__enter__()

    def once() -> float:
        made = [engine.generate(prompt, LONGEST) for prompt in prompts]
        return sum(one.written - 1 for one in made) / sum(one.seconds for one in made)

    return once


def transformers(checkpoint: Checkpoint, prompts: list[list[int]]) -> Callable[[], float]:
    """A round with transformers in fp32: prompt time is measured and taken off."""
    model = checkpoint.model()
    few = prompts[: len(prompts) // 5]

    def timed(ids: torch.Tensor, most: int) -> tuple[float, int]:
        started = time.perf_counter()
        out = model.generate(ids, max_new_tokens=most, do_sample=False)
        return time.perf_counter() - started, out.shape[1] - ids.shape[1]

    def once() -> float:
        seconds, tokens = 0.0, 0
        for prompt in few:
            ids = torch.tensor([prompt])
            first, _ = timed(ids, 1)
            whole, written = timed(ids, LONGEST)
            seconds, tokens = seconds + whole - first, tokens + written - 1
        return tokens / seconds

    return once


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--task", type=Path, required=True)
    options = parser.parse_args()
    checkpoint = open_checkpoint(options.model)
    tokenizer = checkpoint.tokenizer()
    items = read_task(options.task).test[:PROMPTS]
    prompts = [prompt_ids(tokenizer, item.messages) for item in items]

    rounds: dict[str, Callable[[], float]] = {
        "transformers, fp32": transformers(checkpoint, prompts)
    }
    for bits, name in GGUF_NAMES.items():
        for threads in (1, 2):
            label = f"llama.cpp, {bits} bits, {threads} thread{'s' * (threads > 1)}"
            rounds[label] = llama_cpp(options.model / name, threads, prompts)
    speeds: dict[str, list[float]] = {label: [] for label in rounds}
    for number in range(ROUNDS + 1):
        for label, once in rounds.items():
            speed = once()
            if number:  # the first warms up
                speeds[label].append(speed)

    table = Table(title=f"One stream, {len(prompts)} prompts, {ROUNDS} rounds in turn: tokens/s")
    for heading in ("engine", "median", "lowest", "highest", "of transformers"):
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    peer = statistics.median(speeds["transformers, fp32"])
    for label, found in speeds.items():
        middle = statistics.median(found)
        table.add_row(
            label,
            f"{middle:,.0f}",
            f"{min(found):,.0f}",
            f"{max(found):,.0f}",
            f"{middle / peer:.1f}x",
        )
    console = Console()
    console.print(table)

    report = compare(options.model, options.model / GGUF_NAMES[16], prompts, LONGEST)
    console.print(f"{report.equal} of {report.prompts} answers equal transformers' in fp32")
    for tie in [*report.near_ties, *report.differing]:
        console.print(f"  prompt {tie.prompt + 1}, token {tie.position + 1}: {tie.nats:.4f} nats")


if __name__ == "__main__":
    main()
