"""How fast engines run a model here: each in child processes of its own, in turn.

A round measures one stream, a long prompt and batches; rounds of the engines alternate, so that
what else the machine does falls on all of them. Prompts are ids drawn at random.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from flyweight.errors import FlyweightError
from flyweight.runtime.bandwidth import read_speed
from flyweight.runtime.child import answer_parent, memory_of, run_child
from flyweight.runtime.choice import ENGINES, Row
from flyweight.runtime.engine import Engine, Generation
from flyweight.runtime.threads import default_threads

T = TypeVar("T")
ROUNDS = 3
PROMPT = 512  # tokens of the long prompt, or what fits
SHORT = 32  # of the others
WRITTEN = 96  # tokens of an answer at most
STREAMS = (8, 16)
FEWEST = 8  # steps that tell a speed
LONG_ENOUGH = 0.5  # seconds of each kind of work: a small model's answer takes milliseconds
TRIES = 16  # of them at most
TIMEOUT = 1800.0  # seconds, of a round of one engine


@dataclass(frozen=True)
class Sizes:
    """What is measured: tokens of prompts and answers, and how many streams."""

    context: int
    prompt: int
    short: int
    written: int
    streams: tuple[int, ...] = field(default=STREAMS)

    @classmethod
    def fitting(cls, context: int, streams: Sequence[int] = STREAMS) -> Sizes:
        """The usual sizes, or what fits a model's context."""
        prompt = min(PROMPT, context - 2)
        short = min(SHORT, context // 4)
        written = min(WRITTEN, context - short)
        needed = max(prompt + 2, short + written)
        return cls(needed, prompt, short, written, tuple(streams))


def race(
    sources: dict[str, tuple[Path, int]],
    sizes: Sizes,
    *,
    rounds: int = ROUNDS,
    threads: int | None = None,
    on_done: Callable[[], object] = lambda: None,
) -> list[Row]:
    """A row for each engine's (file or folder, bits); what an engine fails at ends its rounds."""
    rows = {name: _start(name, path, bits) for name, (path, bits) in sources.items()}
    for number in range(rounds):
        for name, (path, bits) in sources.items():
            row = rows[name]
            if row.failed:
                on_done()
                continue
            job = {"engine": name, "source": str(path), "sizes": vars(sizes), "threads": threads}
            try:
                told = run_child(__name__, path, job | {"seed": number}, TIMEOUT, lambda: None)
            except FlyweightError as error:
                rows[name] = _failed(name, path, bits, error)
            else:
                rows[name] = _joined(row, told, read_speed(row.reads))
            on_done()
    return list(rows.values())


def _start(name: str, path: Path, bits: int) -> Row:
    try:
        return Row(name, bits, reads=_reads(path))
    except FlyweightError as error:
        return _failed(name, path, bits, error)


def _failed(name: str, path: Path, bits: int, error: FlyweightError) -> Row:
    return Row(name, bits, failed=str(error).removeprefix(f"{path}: "))


def _joined(row: Row, told: dict[str, Any], limit: float) -> Row:
    """A row with one more round."""
    return Row(
        row.engine,
        row.bits,
        stream=[*row.stream, *told["stream"]],
        prompt=[*row.prompt, told["prompt"]],
        batches={
            int(streams): [*row.batches.get(int(streams), []), speed]
            for streams, speed in told["batches"].items()
        },
        first=[*row.first, told["first"]],
        memory=max(row.memory, told["memory"]),
        reads=row.reads,
        limit=[*row.limit, limit],
    )


def _reads(source: Path) -> int:
    """Bytes of weights that a token of one stream needs, in a GGUF file or a checkpoint folder."""
    if source.is_file():
        from flyweight.runtime.gguf_header import read_header

        return read_header(source).read_for_a_token
    from safetensors import safe_open

    sizes: dict[str, int] = {}
    for file in source.glob("*.safetensors"):
        with safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118  it is no mapping
                sizes[name] = 2 * int(np.prod(tensors.get_slice(name).get_shape()))  # bf16
    looked_up = [name for name in sizes if name.endswith("embed_tokens.weight")]
    untied = any(name.endswith("lm_head.weight") for name in sizes)
    return sum(sizes.values()) - (sum(sizes[name] for name in looked_up) if untied else 0)


def _size(source: Path) -> int:
    """Bytes of weights, which say how many threads are best."""
    files = [source] if source.is_file() else source.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def _measure_here(job: dict[str, Any]) -> dict[str, Any]:
    """In the child: one round of one engine."""
    kind, source = ENGINES[job["engine"]], Path(job["source"])
    sizes = Sizes(**job["sizes"])
    draw = np.random.default_rng(job["seed"])
    threads = job["threads"] or default_threads(_size(source))

    with kind.open(source, context=sizes.context, threads=threads) as engine:
        common = engine.tokenize("the of and to in is on by it or be at as an we us if my do no a")

        def prompt(tokens: int) -> list[int]:
            return draw.choice(common, tokens).tolist()

        engine.generate(prompt(sizes.short), min(8, sizes.written))  # pays for page faults
        stream, first = _one_stream(
            _repeated(lambda: engine.generate(prompt(sizes.short), sizes.written))[0]
        )
        read, seconds = _repeated(lambda: engine.generate(prompt(sizes.prompt), 1))
        long = sizes.prompt * len(read) / seconds
        memory = memory_of("VmHWM")
    batches = {}
    for streams in sizes.streams:
        context = sizes.short + sizes.written
        with kind.open(source, context=context, threads=threads, streams=streams) as engine:

            def batch(engine: Engine = engine, streams: int = streams) -> list[Generation]:
                given = [prompt(sizes.short) for _ in range(streams)]
                return engine.generate_many(given, sizes.written)

            made, seconds = _repeated(batch)
            batches[streams] = sum(each.written for answers in made for each in answers) / seconds
    told = {"prompt": long, "batches": batches, "memory": memory, "first": first}
    return told | {"stream": [stream] if stream else []}


def _repeated(work: Callable[[], T]) -> tuple[list[T], float]:
    """What came of the work each time until that was LONG_ENOUGH, and the seconds of all.

    A first time warms up, and counts where it was far longer than that.
    """
    started = time.perf_counter()
    first = work()
    seconds = time.perf_counter() - started
    if seconds > 4 * LONG_ENOUGH:
        return [first], seconds
    found, started, seconds = [], time.perf_counter(), 0.0
    while seconds < LONG_ENOUGH and len(found) < TRIES:
        found.append(work())
        seconds = time.perf_counter() - started
    return found, seconds


def _one_stream(made: list[Generation]) -> tuple[float, float]:
    """Tokens a second after the first (0: the model says too little), seconds to the first."""
    steps = sum(each.written - 1 for each in made)
    seconds = sum(each.seconds for each in made)
    first = float(np.median([each.prompt_seconds for each in made]))
    return (steps / seconds if steps >= FEWEST and seconds else 0.0), first


if __name__ == "__main__":
    answer_parent(_measure_here)

__all__ = ["ROUNDS", "STREAMS", "Sizes", "race"]
