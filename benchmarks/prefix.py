"""How long is a prompt of 2,000 tokens in coming to its first token, once it was read before?

    python benchmarks/prefix.py --keep out/engines
    python benchmarks/prefix.py --keep out/engines --sizes demo,4M --big

The rival is the same prompt read anew. Through our interface, the whole call to the first token;
the aim is 50 ms for what was read before. The demo's teacher and the random Llamas of engines.py,
each in a child process of its own; torch, in bf16, beside llama.cpp for the small ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.table import Table

from engines import TOKENIZER, console, middle, model
from flyweight.anatomy.gguf import LLAMA
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.engine import Engine
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.torch_engine import TorchEngine

PROMPT, TURN = 2000, 16  # tokens seen before, and of the next turn
CONTEXT = 2048
AIM = 50.0  # ms
CACHE = 2 * 2**30  # bytes for what other prompts read
TIMES, SELDOM = 15, 3  # of each kind, and of what takes long
LONG = 10.0  # seconds that all times of a kind may take
BESIDE_TORCH = ("demo", "4M", "11M")
ANEW, AGAIN, TURNS, OTHER, LOADED, LOADING = (
    "read anew",
    "the same again",
    f"{TURN} tokens after it",
    "after another prompt came between",
    "in a new engine, from a saved state",
    "(loading that state, once)",
)

Taken = dict[str, list[tuple[float, int]]]  # (ms, tokens evaluated) of each time


def source_of(keep: Path, name: str, engine: str) -> Path:
    """The file or folder of a model, written if it is not there."""
    bits = 8 if name == "demo" else 4
    if name != "demo":
        folder = model(keep, name, (bits,))
        return folder if engine == "torch" else folder / GGUF_NAMES[bits]
    gguf = keep / "demo.gguf"
    if not gguf.exists():
        keep.mkdir(parents=True, exist_ok=True)
        write_gguf(TOKENIZER, gguf, bits, LLAMA)
    return TOKENIZER if engine == "torch" else gguf


class Clocked:
    """An engine whose prompts are timed to their first token; `draw` makes them."""

    def __init__(self, engine: Engine, draw: np.random.Generator) -> None:
        self.engine, self.draw = engine, draw
        self.common = engine.tokenize("the of and to in is on by it or be at as an we us if my do")

    def tokens(self, count: int) -> list[int]:
        return self.draw.choice(self.common, count).tolist()

    def first(self, prompt: list[int], *, reuse: bool = True) -> tuple[float, int]:
        """(ms, tokens evaluated) to the first token."""
        started = time.perf_counter()
        answer = self.engine.generate(prompt, 1, reuse=reuse)
        return 1000 * (time.perf_counter() - started), answer.prompt_tokens


def often(seconds: float) -> int:
    """How many times, of what takes so long once."""
    return TIMES if seconds < LONG / TIMES else SELDOM


def in_one_engine(source: Path, engine: str, draw: np.random.Generator) -> Taken:
    """Read anew, asked again, and as the next turn of a conversation."""
    kind: Any = LlamaEngine if engine == "llama.cpp" else TorchEngine
    more = {} if engine == "llama.cpp" else {"dtype": "bfloat16"}
    with kind(source, context=CONTEXT, **more) as opened:
        clocked = Clocked(opened, draw)
        clocked.first(clocked.tokens(TURN), reuse=False)  # pays for page faults
        anew = [clocked.first(clocked.tokens(PROMPT), reuse=False)]
        while len(anew) < often(anew[0][0] / 1000):
            anew.append(clocked.first(clocked.tokens(PROMPT), reuse=False))
        seen = clocked.tokens(PROMPT)
        clocked.first(seen)
        again = [clocked.first(seen) for _ in range(TIMES)]
        turns = [clocked.first(seen + clocked.tokens(TURN)) for _ in range(TIMES)]
    return {ANEW: anew, AGAIN: again, TURNS: turns}


def after_another(source: Path, draw: np.random.Generator) -> Taken:
    """Two conversations by turns in one stream, with a cache for what the other one read."""
    with LlamaEngine(source, context=CONTEXT, cache_bytes=CACHE) as opened:
        clocked = Clocked(opened, draw)
        seen = [clocked.tokens(PROMPT) for _ in range(2)]
        for each in seen:
            clocked.first(each)
        found = [clocked.first(seen[n % 2] + clocked.tokens(TURN)) for n in range(TIMES)]
    return {OTHER: found}


def from_a_state(source: Path, draw: np.random.Generator) -> Taken:
    """Saved by one engine, taken up by others."""
    loading, found = [], []
    with TemporaryDirectory() as scratch:
        state = Path(scratch) / "state"
        with LlamaEngine(source, context=CONTEXT) as opened:
            clocked = Clocked(opened, draw)
            seen = clocked.tokens(PROMPT)
            clocked.first(seen)
            opened.save_state(state)
        for _ in range(often(source.stat().st_size / 1e8)):  # seconds to load, about
            with LlamaEngine(source, context=CONTEXT) as opened:
                clocked = Clocked(opened, draw)
                started = time.perf_counter()
                opened.load_state(state)
                loading.append((1000 * (time.perf_counter() - started), 0))
                found.append(clocked.first(seen + clocked.tokens(TURN)))
    return {LOADED: found, LOADING: loading}


def measured(source: Path, engine: str) -> Taken:
    """All kinds that an engine can, in this process."""
    draw = np.random.default_rng(0)
    taken = in_one_engine(source, engine, draw)
    if engine == "llama.cpp":
        taken |= after_another(source, draw) | from_a_state(source, draw)
    return taken


def in_child(source: Path, engine: str) -> Taken:
    told = [sys.executable, __file__, "--keep", ".", "--child", engine, str(source)]
    output = subprocess.run(told, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--sizes", default="demo,4M,11M,50M")
    parser.add_argument("--big", action="store_true", help="the shape of Llama 3.2 1B besides")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(Path(options.child[1]), options.child[0])))
        return
    table = Table(title=f"A prompt of {PROMPT:,} tokens to its first token, ms")
    for head in ("model", "engine", "", "median (range)", "n", "evaluated", f"under {AIM:.0f} ms"):
        table.add_column(head, justify="left" if len(table.columns) < 3 else "right")
    for name in [*options.sizes.split(","), *(["1B"] if options.big else [])]:
        for engine in ("llama.cpp", "torch") if name in BESIDE_TORCH else ("llama.cpp",):
            taken = in_child(source_of(options.keep, name, engine), engine)
            for kind, times in taken.items():
                ms = [each for each, _ in times]
                evaluated = f"{statistics.median(read for _, read in times):,.0f}"
                under = f"{sum(each < AIM for each in ms)} of {len(ms)}"
                told = (middle(ms, 1), str(len(ms)))
                told += ("", "") if kind == LOADING else (evaluated, under)
                table.add_row(name, engine, kind, *told)
            table.add_section()
    console.print(table)


if __name__ == "__main__":
    main()
