"""How far is the quote from what a job takes, on a machine that has run a few?

Ten jobs of different sizes (teachers, items, answers, steps), each quoted before and timed, from
an empty record: the first quote is a mere assumption, each further one knows the jobs before it.
The peer is the plainest rule: the mean seconds of the jobs so far. The aim: within 25 % after the
third.

    python benchmarks/quote_accuracy.py          # ten jobs, a few minutes
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import flyweight
from conftest import save_tiny_llama
from flyweight.card import QuoteCard
from flyweight.folder import read_card

NEAR = 0.25


def teacher(folder: Path, generator: random.Random) -> Path:
    """A random Llama of random size whose answers end soon."""
    from safetensors.torch import load_file, save_file

    width = generator.choice((64, 128, 192, 256))
    save_tiny_llama(
        folder,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=generator.choice((4, 6, 8)),
        max_position_embeddings=1024,
    )
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][1] *= 4
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def task(path: Path, generator: random.Random) -> Path:
    """Questions of random number and length, with answers of random length."""
    words = generator.randint(2, 30)
    answer = " ".join(["pump"] * generator.randint(1, 12))
    counts = {"train": generator.randint(100, 800), "dev": 100, "test": 100}
    lines = [
        {"prompt": f"{split} " + "the valve " * words + str(i), "answer": answer, "split": split}
        for split, count in counts.items()
        for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


def run(number: int, root: Path, generator: random.Random) -> QuoteCard:
    """One job; its quote beside what it took."""
    out = root / f"out{number}"
    options: dict[str, Any] = {
        "task": task(root / f"task{number}.jsonl", generator),
        "effort": "quick",
        "steps": generator.randint(60, 400),
        "bar_absolute": 0.5,
    }
    flyweight.make(str(teacher(root / f"llama{number}", generator)), out=out, **options)
    quote = read_card(out).quote
    assert quote is not None
    return quote


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    table = Table(title="Quoted and taken, seconds")
    for heading in ("job", "quoted", "taken", "quote / taken", "mean of those before / taken"):
        table.add_column(heading, justify="right")
    taken: list[float] = []
    near: list[bool] = []
    peer_near: list[bool] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FLYWEIGHT_STATE"] = str(Path(scratch) / "state")
        for number in range(1, options.jobs + 1):
            quote = run(number, Path(scratch), generator)
            assert quote.actual_seconds is not None
            ratio = quote.seconds / quote.actual_seconds
            mean = sum(taken) / len(taken) / quote.actual_seconds if taken else float("nan")
            if number > 3:
                near.append(abs(ratio - 1) <= NEAR)
                peer_near.append(abs(mean - 1) <= NEAR)
            taken.append(quote.actual_seconds)
            figures = (quote.seconds, quote.actual_seconds, ratio, mean)
            table.add_row(str(number), *(f"{each:.2f}" for each in figures))
    console = Console()
    console.print(table)
    for name, found in (("quote", near), ("mean of those before", peer_near)):
        share = stats.binomtest(sum(found), len(found)).proportion_ci()
        console.print(
            f"{name}: within {NEAR:.0%} in {sum(found)} of {len(found)} jobs after the third "
            f"(95 %: {share.low:.0%} to {share.high:.0%})"
        )


if __name__ == "__main__":
    main()
