"""Which engine runs which size fastest, and what does our interface cost beside the bare engine?

    python benchmarks/engines.py --keep out/engines          # the small sizes
    python benchmarks/engines.py --keep out/engines --big    # Llama 3.2 1B's shape
    ... --big --prompt 8192 --rounds 1 --engines llama.cpp,openvino    # a long prompt there

Random Llamas with tied embeddings, written once to the folder of --keep. Engines run in child
processes, in turn, a round each; the peers are the bare server of xllamacpp (in one process with
our interface to it, calls alternating) and transformers in bf16. Medians with their range.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from flyweight.anatomy.gguf import LLAMA
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.choice import ENGINES, Row
from flyweight.runtime.engine_speed import Sizes, race
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.threads import default_threads

# hidden, MLP width, layers, heads, KV groups, vocabulary
SHAPES = {
    "1M": (128, 352, 3, 2, 1, 4096),
    "4M": (256, 704, 4, 4, 2, 4096),
    "11M": (384, 1024, 6, 6, 2, 4096),
    "50M": (768, 1920, 8, 12, 4, 4096),
    "1B": (2048, 8192, 16, 32, 8, 128256),
}
CONTEXT = 16384  # tokens that they are made for
TOKENIZER = Path("src/flyweight/demo/teacher")
SHORT = 32  # tokens of the other prompts
PAIRS = 9  # calls of each kind, bare and through the interface
SLOW = 5.0  # seconds of a call, of which three pairs do

console = Console(highlight=False, width=120)


def model(keep: Path, name: str, bits: tuple[int, ...]) -> Path:
    """The folder of a random model of a named shape, with its files, written if it is not there."""
    return write_model(keep / f"{name}-{CONTEXT // 1024}k", SHAPES[name], bits)


def write_model(folder: Path, shape: tuple[int, ...], bits: tuple[int, ...]) -> Path:
    """The same of any shape (as in SHAPES), in that folder."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if not (folder / "config.json").exists():
        hidden, mlp, layers, heads, groups, vocabulary = shape
        tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=groups,
            head_dim=64,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for width in bits:
        if not (folder / GGUF_NAMES[width]).exists():
            write_gguf(folder, folder / GGUF_NAMES[width], width, LLAMA)
    return folder


def middle(values: list[float], digits: int = 0) -> str:
    """A median with the lowest and highest of its rounds."""
    if not values:
        return "-"
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def ratio(mine: list[float], theirs: list[float]) -> str:
    """The median of the rounds' ratios, with the lowest and highest."""
    return middle([a / b for a, b in zip(mine, theirs, strict=False)], 2)


def show(title: str, rows: list[Row]) -> None:
    """A row an engine, with the share of what this machine reads, and ratios to llama.cpp."""
    table = Table(title=title)
    streams = sorted({each for row in rows for each in row.batches})
    heads = ("stream", "GB/s", "limit", *(f"x {n}" for n in streams), "prompt", "MB")
    for head in ("engine", *heads):
        table.add_column(head, justify="left" if head == "engine" else "right")
    for row in rows:
        if row.failed:
            console.print(f"{row.engine}, {row.bits} bits: {row.failed}")
            continue
        limit = statistics.median(row.limit)
        read = row.reads * statistics.median(row.stream)
        table.add_row(
            f"{row.engine}, {row.bits} bits",
            middle(row.stream),
            f"{read / 1e9:.1f} ({read / limit:.0%})",
            middle([each / 1e9 for each in row.limit]),
            *(middle(row.batches.get(n, [])) for n in streams),
            middle(row.prompt),
            f"{row.memory / 1e6:,.0f}",
        )
    console.print(table)
    standard = rows[0]
    for row in rows[1:]:
        if not row.failed and not standard.failed:
            batches = ", ".join(
                f"x {n} {ratio(row.batches[n], standard.batches[n])}" for n in streams
            )
            console.print(
                f"{row.engine} ({row.bits} bits) beside {standard.engine}: stream "
                f"{ratio(row.stream, standard.stream)}, {batches}, prompt "
                f"{ratio(row.prompt, standard.prompt)}"
            )


def bare(gguf: Path, context: int, threads: int) -> Callable[[list[int], int], dict[str, Any]]:
    """xllamacpp's server as its own documentation starts it, greedy, nothing of ours between."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(gguf)
    parameters.n_parallel, parameters.n_ctx = 1, context
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.verbosity = -1
    parameters.cache_ram_mib = 0
    server = xllamacpp.Server(parameters)  # pyright: ignore

    def complete(prompt: list[int], tokens: int) -> dict[str, Any]:
        return server.handle_completions(
            {
                "prompt": prompt,
                "n_predict": tokens,
                "temperature": 0,
                "top_k": 1,
                "samplers": ["top_k"],
                "cache_prompt": False,
            }
        )

    return complete


def overhead(gguf: Path, sizes: Sizes, threads: int | None) -> None:
    """Our interface and the bare server, calls alternating, each on the same prompt."""
    threads = threads or default_threads(gguf.stat().st_size)
    plain = bare(gguf, sizes.context, threads)
    taken: dict[tuple[str, str], list[float]] = {}
    with LlamaEngine(gguf, context=sizes.context, threads=threads) as engine:
        calls: dict[str, Callable[[list[int], int], Any]] = {
            "bare": plain,
            "ours": engine.generate,
        }
        kinds = {"stream": (8, sizes.written), "first": (8, 1), "prompt": (sizes.prompt, 1)}
        for number in range(PAIRS + 1):
            for kind, (tokens, written) in kinds.items():
                if number > 3 and max(taken[kind, "ours"]) > SLOW:
                    continue
                prompt = [10 + (number * 31 + place * 7) % 200 for place in range(tokens)]
                names = list(calls) if number % 2 else list(reversed(calls))
                for name in names:
                    started = time.perf_counter()
                    calls[name](prompt, written)
                    seconds = time.perf_counter() - started
                    if number:  # the first warms up
                        taken.setdefault((kind, name), []).append(seconds)
    console.print(
        f"{gguf.parent.name}, our interface beside the bare server, n = {PAIRS}: one stream at "
        f"{ratio(taken['stream', 'bare'], taken['stream', 'ours'])} of its speed; first token "
        f"of a short prompt {_later(taken, 'first')} ms later, of {sizes.prompt} tokens "
        f"{_later(taken, 'prompt')} (n = {len(taken['prompt', 'ours'])})"
    )


def _later(taken: dict[tuple[str, str], list[float]], kind: str) -> str:
    pairs = zip(taken[kind, "ours"], taken[kind, "bare"], strict=True)
    return middle([1000 * (ours - theirs) for ours, theirs in pairs], 1)


def main() -> None:
    """Write what is missing, measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--big", action="store_true")
    parser.add_argument("--sizes", default="1M,4M,11M,50M")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--written", type=int, default=64)
    parser.add_argument("--streams", default="8,16")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the long prompt")
    parser.add_argument("--threads", type=int, help="of every engine; as they choose by default")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--no-bare", action="store_true")
    options = parser.parse_args()
    streams = tuple(map(int, options.streams.split(",")))
    context = max(options.prompt + 128, SHORT + options.written)
    if context > CONTEXT:
        parser.error(f"--prompt and --written: the models are made for {CONTEXT} tokens")
    sizes = Sizes(context, options.prompt, SHORT, options.written, streams)
    for name in ["1B"] if options.big else options.sizes.split(","):
        widths = (4,) if options.big else (8, 4)
        folder = model(options.keep, name, widths)
        for bits in widths:
            gguf = folder / GGUF_NAMES[bits]
            if not options.no_bare:
                overhead(gguf, sizes, options.threads)
            sources = {
                engine: (gguf, bits) if kind.opens == "gguf" else (folder, 16)
                for engine, kind in ENGINES.items()
                if engine in options.engines.split(",")
                and (kind.opens == "gguf" or bits == widths[0])
            }
            if not options.rounds:
                continue
            rows = race(sources, sizes, rounds=options.rounds, threads=options.threads)
            title = f"{name} at {bits} bits, tokens/s, prompt of {sizes.prompt}, {options.rounds}"
            show(f"{title} rounds in turn", rows)


if __name__ == "__main__":
    main()
