"""Where does a token's time go in llama.cpp: to its weights, its layers, its vocabulary, the rest?

    python benchmarks/where.py --keep out/engines --bits 4

One stream on one thread. Random Llamas of other sizes are written, and their times fitted by

    t = a + b * layers + c * bytes of the layers + d * bytes of the output matrix + e * vocabulary

(least squares on shares of t, none below 0), once in each round; rounds alternate over all models,
and of a few answers in a row the fastest counts: what others do on this machine is not asked here.
The sizes of engines.py are no part of the fit: what it foretells of them stands beside what they
took, and a bare read of as many bytes. Then, for each of them, what else a token can cost: more
positions, log-probabilities, a grammar, a second thread, and our own Python.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import nnls

from engines import middle, model, write_model
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.bandwidth import read_speed
from flyweight.runtime.constraint import Constraint
from flyweight.runtime.engine import Engine, Generation
from flyweight.runtime.gguf_header import EMBEDDING, read_header
from flyweight.runtime.llama import LlamaEngine

GRID = [  # hidden, layers, vocabulary
    *((128, layers, 4096) for layers in (1, 4, 16)),
    *((256, layers, 4096) for layers in (1, 8)),
    *((384, layers, 4096) for layers in (2, 10)),
    *((512, layers, 4096) for layers in (2, 6)),
    (768, 3, 4096),
    *((128, 2, 32768), (256, 2, 65536), (384, 1, 32768)),
]
PARTS = ("a token", "a layer", "layers' weights", "output's weights", "vocabulary")
CONTEXT = 2048
SHORT, WRITTEN = 32, 96  # tokens
TRIES = 4  # answers in a row
FAR = 1800  # tokens of a prompt, in what more positions cost
COUNTER = "import sys, xllamacpp as x; p = x.CommonParams(); p.model.path = sys.argv[1]; \
p.n_ctx = 256; p.n_parallel = 1; p.warmup = False; p.verbosity = 4; s = x.Server(p); \
s.handle_completions({'prompt': [0], 'n_predict': 1})"  # a server that says how large its graph is


console = Console(highlight=False, width=140)


@dataclass
class Timed:
    """A model in an engine: what a token's time may depend on, and seconds a token by rounds."""

    name: str
    gguf: Path
    engine: Engine
    layers: int
    body: int  # bytes of the layers
    head: int
    vocabulary: int
    taken: list[float] = field(default_factory=list)

    @property
    def features(self) -> list[float]:
        """In the order of PARTS."""
        return [1.0, self.layers, self.body, self.head, self.vocabulary]

    def round(self, draw: np.random.Generator) -> float:
        """Seconds a token."""
        prompt = draw.integers(300, 1500, SHORT).tolist()
        return fastest(lambda: self.engine.generate(prompt, WRITTEN))[0]


def fastest(work: Callable[[], Generation]) -> tuple[float, float]:
    """Seconds a token of the fastest of a few answers, and those that its engine did not count."""
    found = []
    for _ in range(TRIES):
        started = time.perf_counter()
        made = work()
        rest = time.perf_counter() - started - made.seconds - made.prompt_seconds
        found.append((made.seconds / (made.written - 1), rest / made.written))
    return min(found)


def opened(name: str, gguf: Path, stack: ExitStack) -> Timed:
    header = read_header(gguf)
    embedding = header.tensors[EMBEDDING]
    return Timed(
        name,
        gguf,
        stack.enter_context(LlamaEngine(gguf, context=CONTEXT, threads=1)),
        layers=header.keys[f"{header.architecture}.block_count"],
        body=header.read_for_a_token - embedding.bytes,
        head=embedding.bytes,
        vocabulary=embedding.shape[0],
    )


def grid(keep: Path, bits: int, stack: ExitStack) -> list[Timed]:
    found = []
    for hidden, layers, vocabulary in GRID:
        heads = hidden // 64
        shape = (hidden, hidden * 11 // 128 * 32, layers, heads, max(1, heads // 2), vocabulary)
        name = f"{hidden}x{layers}, {vocabulary}"
        folder = write_model(keep / "where" / name.replace(", ", "-"), shape, (bits,))
        found.append(opened(name, folder / GGUF_NAMES[bits], stack))
    return found


def nodes(gguf: Path) -> int:
    """Steps in the graph of a pass, as llama.cpp says when it loads."""
    told = subprocess.run(
        [sys.executable, "-c", COUNTER, str(gguf)], capture_output=True, text=True, check=True
    )
    return int(re.findall(r"graph: nodes = (\d+)", told.stdout + told.stderr)[0])


def fits(models: list[Timed]) -> np.ndarray:
    """Coefficients [rounds, PARTS], the models' times of each round fitted by themselves."""
    features = np.array([each.features for each in models])  # [models, PARTS]
    scale = features.max(0)  # bytes and layers in numbers of one size
    found = []
    for taken in zip(*(each.taken for each in models), strict=True):
        shares = features / scale / np.array(taken)[:, None]
        found.append(nnls(shares, np.ones(len(taken)))[0] / scale)
    return np.array(found)


def show_fit(models: list[Timed], found: np.ndarray) -> None:
    """The coefficients in units that say something, and how well they fit."""
    few, many = (next(m for m in models if (m.layers, m.vocabulary) == (n, 4096)) for n in (1, 16))
    first, last = nodes(few.gguf), nodes(many.gguf)
    each = (last - first) / (many.layers - few.layers)
    microseconds, speeds = found * 1e6, 1 / np.maximum(found, 1e-15) / 1e9
    median = np.median(found, 0)
    off = [
        abs(float(np.dot(median, one.features)) / statistics.median(one.taken) - 1)
        for one in models
    ]
    console.print(
        f"A token: {middle(microseconds[:, 0].tolist(), 1)} us; a layer "
        f"{middle(microseconds[:, 1].tolist(), 1)} us, which is {each:.1f} of the graph's nodes "
        f"({first} with {few.layers} layer, {last} with {many.layers}); 1,000 of the vocabulary "
        f"{middle((1e3 * microseconds[:, 4]).tolist(), 2)} us. Layers' weights are worked through "
        f"at {middle(speeds[:, 2].tolist(), 1)} GB/s, of the output at "
        f"{middle(speeds[:, 3].tolist(), 1)}. {len(models)} models, n = {len(found)} rounds; the "
        f"fit is off by {np.median(off):.0%} in the median, at most {max(off):.0%}."
    )


def show_split(models: list[Timed], found: np.ndarray, bits: int) -> None:
    """How the time of each size splits, as the fit has it."""
    table = Table(title=f"A token at {bits} bits, one stream, one thread, n = {len(found)}")
    heads = ("took, us", "foretold", *PARTS, "bare read")
    for head in ("size", *heads):
        table.add_column(head, justify="right" if table.columns else "left")
    for one in models:
        parts = np.array(one.features) * found  # [rounds, PARTS]
        whole = parts.sum(1)
        shares = [middle((100 * part / whole).tolist()) + " %" for part in parts.T]
        took = statistics.median(one.taken)
        bare = (one.body + one.head) / read_speed(one.body + one.head)
        told = (f"{np.median(whole) / took:.0%}", *shares, f"{bare / took:.0%}")
        table.add_row(one.name, middle([1e6 * each for each in one.taken]), *told)
    console.print(table)


def more(one: Timed, draw: np.random.Generator, rounds: int) -> dict[str, list[float]]:
    """Microseconds a token, in turn: plain, and with what can come on top."""
    far = draw.integers(300, 1500, FAR).tolist()
    near, letters = far[:SHORT], Constraint.regex("[a-z ]{1000}")
    with (
        LlamaEngine(one.gguf, context=CONTEXT, threads=1) as other,  # keeps the long prompt
        LlamaEngine(one.gguf, context=CONTEXT, threads=2) as two,
    ):
        kinds: dict[str, Callable[[], Generation]] = {
            "plain": lambda: one.engine.generate(near, WRITTEN),
            f"after {FAR:,} tokens": lambda: other.generate(far, WRITTEN, reuse=True),
            "a log-probability": lambda: one.engine.generate(near, WRITTEN, top=1),
            "a grammar": lambda: one.engine.generate(near, WRITTEN, constraint=letters),
            "two threads": lambda: two.generate(near, WRITTEN),
        }
        found: dict[str, list[float]] = {name: [] for name in (*kinds, "our Python")}
        for number in range(rounds + 1):
            for name, kind in kinds.items():
                token, rest = fastest(kind)
                if number:  # the first warms up
                    found[name].append(1e6 * token)
                if number and name == "plain":
                    found["our Python"].append(1e6 * rest)
    return found


def show_more(models: list[Timed], draw: np.random.Generator, rounds: int) -> None:
    table = Table(title=f"us a token beyond a plain one's, answers of {WRITTEN}, n = {rounds}")
    table.add_column("size")
    for one in models:
        found = more(one, draw, rounds)
        plain = found.pop("plain")
        if len(table.columns) == 1:
            for name in ("plain", *found):
                table.add_column(name, justify="right")
        told = [
            middle(times)
            if name == "our Python"
            else middle([mine - its for mine, its in zip(times, plain, strict=False)])
            for name, times in found.items()
        ]
        table.add_row(one.name, middle(plain), *told)
    console.print(table)
    console.print("Our Python: with the server's own work around an answer, prompts excepted.")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--sizes", default="1M,4M,11M,50M")
    parser.add_argument("--bits", type=int, default=4, choices=(4, 8))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    with ExitStack() as stack:
        fitted = grid(options.keep, options.bits, stack)
        asked = [
            opened(
                name,
                model(options.keep, name, (options.bits,)) / GGUF_NAMES[options.bits],
                stack,
            )
            for name in options.sizes.split(",")
        ]
        for number in range(options.rounds + 1):
            for one in [*fitted, *asked]:
                token = one.round(draw)
                if number:  # the first warms up
                    one.taken.append(token)
        found = fits(fitted)
        show_fit(fitted, found)
        show_split(asked, found, options.bits)
        show_more(asked, draw, options.rounds)


if __name__ == "__main__":
    main()
