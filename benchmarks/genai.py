"""Is onnxruntime-genai faster than llama.cpp through our interface, at 4 bits?

    python3 -m venv benchmarks/.venv-genai
    benchmarks/.venv-genai/bin/pip install torch==2.13.0
    benchmarks/.venv-genai/bin/pip install -r benchmarks/requirements-genai.txt
    python benchmarks/genai.py --keep out/engines
    python benchmarks/genai.py --keep out/engines --sizes 1B --written 32

The random Llamas of engines.py: as Q4_0 (embedding and output, which are one, at 8 bits), and as
the peer's model builder writes int4 for the processor by default (blocks of 32, products in int8,
all at 4 bits). Rounds alternate, each in a child process of its own, with the same threads, lengths
and repetition. The peer's batches begin and end together, as these prompts do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table
from scipy.stats import binom

from engines import SHORT, console, middle, model, ratio
from flyweight.checkpoint import open_checkpoint
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.choice import Row
from flyweight.runtime.engine_speed import Sizes, race
from flyweight.runtime.threads import default_threads

PEER = Path(__file__).parent / ".venv-genai" / "bin" / "python"
LENGTH = 512  # tokens of the long prompt
BITS = 4


def build(folder: Path) -> Path:
    """The peer's folder beside a model's, written by its own builder if it is not there."""
    out = folder / "genai"
    if not (out / "genai_config.json").exists():
        told = ("-m", "onnxruntime_genai.models.builder", "-m", folder, "-o", out, "-p", "int4")
        subprocess.run([PEER, *told, "-e", "cpu"], check=True, capture_output=True)
    return out


def round_of_peer(built: Path, sizes: Sizes, job: dict[str, Any]) -> dict[str, Any]:
    told = {"folder": str(built), **vars(sizes), **job}
    script = Path(__file__).with_name("genai_peer.py")
    found = subprocess.run(
        [PEER, script], check=True, input=json.dumps(told) + "\n", stdout=subprocess.PIPE, text=True
    )
    return json.loads(found.stdout.splitlines()[-1])


def rounds(folder: Path, sizes: Sizes, count: int, threads: int | None) -> tuple[Row, Row]:
    """Ours and the peer's, in turn."""
    gguf, built = folder / GGUF_NAMES[BITS], build(folder)
    threads = threads or default_threads(gguf.stat().st_size)
    words = "the of and to in is on by it or be at as an we us if my do no a"
    common = open_checkpoint(folder).tokenizer()(words, add_special_tokens=False)["input_ids"]
    peer = Row("onnxruntime-genai", BITS, batches={n: [] for n in sizes.streams})
    ours = Row("llama.cpp", BITS, batches={n: [] for n in sizes.streams})
    memory = 0, 0
    for number in range(count):
        [row] = race({"llama.cpp": (gguf, BITS)}, sizes, rounds=1, threads=threads)
        if row.failed:
            raise SystemExit(row.failed)
        told = round_of_peer(
            built, sizes, {"threads": threads, "seed": number, "common": sorted({*common})}
        )
        ours.stream.extend(row.stream)
        ours.prompt.extend(row.prompt)
        peer.stream.append(told["stream"])
        peer.prompt.append(told["prompt"])
        for n in sizes.streams:
            ours.batches[n].extend(row.batches[n])
            peer.batches[n].append(told["batches"][str(n)])
        memory = max(memory[0], row.memory), max(memory[1], told["memory"])
    return replace(ours, memory=memory[0]), replace(peer, memory=memory[1])


def likely(mine: list[float], theirs: list[float]) -> str:
    """The median ratio with its 95 % interval from the ranks of the rounds; the range of few."""
    ratios = sorted(a / b for a, b in zip(mine, theirs, strict=True))
    below = int(binom.ppf(0.025, len(ratios), 0.5))  # rounds that may lie on the wrong side
    if below < 1:
        return ratio(mine, theirs) + ", range"
    return f"{statistics.median(ratios):.2f} ({ratios[below - 1]:.2f}-{ratios[-below]:.2f})"


def show(name: str, ours: Row, peer: Row, threads: int | None) -> None:
    told = f"{threads} threads each" if threads else "threads as ours chooses"
    table = Table(title=f"{name} at {BITS} bits, tokens/s, {told}, n = {len(peer.stream)}")
    for head in ("", "one stream", *(f"x {n}" for n in ours.batches), f"prompt of {LENGTH}", "MB"):
        table.add_column(head, justify="right" if table.columns else "left")
    for row in (ours, peer):
        many = (middle(each) for each in row.batches.values())
        table.add_row(
            row.engine, middle(row.stream), *many, middle(row.prompt), f"{row.memory / 1e6:,.0f}"
        )
    many = (likely(peer.batches[n], ours.batches[n]) for n in ours.batches)
    both = likely(peer.stream, ours.stream), *many, likely(peer.prompt, ours.prompt)
    table.add_row("ratio of a round, 95 %", *both, "")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--sizes", default="11M")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--written", type=int, default=64)
    parser.add_argument("--streams", default="16")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if not PEER.exists():
        print("\n".join((__doc__ or "").splitlines()[2:5]))
        return
    streams = tuple(map(int, options.streams.split(",")))
    sizes = Sizes(LENGTH + 128, LENGTH, SHORT, options.written, streams)
    for name in options.sizes.split(","):
        folder = model(options.keep, name, (BITS,))
        ours, peer = rounds(folder, sizes, options.rounds, options.threads)
        show(name, ours, peer, options.threads)


if __name__ == "__main__":
    main()
