"""Is the memory that a context takes what was foretold from the file's header?

Random networks of several shapes, none of them one that the constants were found with, each in a
process of its own: its context is filled, and the peak of its resident memory beyond the bare
interpreter's is held against `Sizes.memory`, of which nothing was told.

    python benchmarks/context.py             # ten minutes on a core
    python benchmarks/context.py --gguf FILE # that file besides
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.table import Table

from flyweight.checkpoint import open_checkpoint, save_checkpoint
from flyweight.runtime.child import memory_of
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.memory import sizes_of

DEMO = Path(__file__).parents[1] / "src/flyweight/demo/teacher"
SHAPES = {  # vocabulary, hidden, MLP, layers, heads, KV groups
    "7 M": (2048, 192, 768, 10, 6, 2),
    "30 M": (16384, 384, 1024, 12, 6, 6),
    "110 M": (32000, 768, 2048, 14, 12, 4),
}
LOADS = ((512, 1, 16), (4096, 1, 16), (4096, 4, 16), (8192, 1, 8))  # context, streams, KV bits
BITS = (8, 4)


def write_network(name: str, folder: Path) -> dict[int, Path]:
    """A random Llama of that size as GGUF files, by their bits."""
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary, hidden, mlp, layers, heads, groups = SHAPES[name]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=65536,
        tie_word_embeddings=True,
    )
    save_checkpoint(LlamaForCausalLM(config), open_checkpoint(DEMO).tokenizer(), folder)
    files = {bits: folder / f"{bits}.gguf" for bits in BITS}
    for bits, file in files.items():
        write_gguf(folder, file, bits, open_checkpoint(folder).gguf_map)
    return files


def fill(gguf: Path, context: int, streams: int, kv_bits: int) -> int:
    """Bytes at the peak, with one stream's context filled, beyond what this process had."""
    before = memory_of("VmRSS")
    with LlamaEngine(gguf, context=context, streams=streams, kv_bits=kv_bits) as engine:
        engine.generate([5] * (context - 8), 8)
    return memory_of("VmHWM") - before


def peak(gguf: Path, load: tuple[int, int, int]) -> int:
    """The same in a fresh process."""
    told = [sys.executable, __file__, "--fill", str(gguf), *map(str, load)]
    return json.loads(subprocess.run(told, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gguf", type=Path, nargs="*", default=[])
    parser.add_argument("--fill", nargs=4, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.fill:
        print(fill(Path(told.fill[0]), *map(int, told.fill[1:])))
        return
    table = Table(title="Peak memory of a filled context")
    for heading in ("network", "bits", "context", "streams", "KV bits", "foretold", "took", "off"):
        table.add_column(heading, justify="right" if table.columns else "left")
    off = []
    with TemporaryDirectory() as scratch:
        files = [
            (name, str(bits), file)
            for name in SHAPES
            for bits, file in write_network(name, Path(scratch) / name.replace(" ", "")).items()
        ]
        for name, bits, file in [*files, *((path.name, "", path) for path in told.gguf)]:
            sizes = sizes_of(file)
            for load in LOADS:
                if load[0] > sizes.context:
                    continue
                foretold, took = sizes.memory(*load), peak(file, load)
                off.append(foretold / took - 1)
                told_in = f"{foretold / 1e6:,.1f} MB", f"{took / 1e6:,.1f} MB"
                table.add_row(name, bits, *map(str, load), *told_in, f"{off[-1]:+.1%}")
    console = Console(highlight=False, width=110)
    console.print(table)
    errors = np.abs(off)
    console.print(
        f"Off by {np.median(errors):.1%} in the median, at most {errors.max():.1%}; "
        f"{(errors <= 0.1).sum()} of {len(errors)} within 10 %."
    )


if __name__ == "__main__":
    main()
