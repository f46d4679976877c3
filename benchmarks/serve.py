"""What does the service cost beside the bare engine, and beside llama.cpp's own server?

    python benchmarks/serve.py --model out/demo            # a packed folder
    python benchmarks/serve.py --model FOLDER --written 128 --rounds 15

One stream of the same token ids through the engine in this process, the service, and llama.cpp's
HTTP server, calls in turn; then 16 clients at once against both servers; then the time from the
start of the command to the end of a first answer, and the processor's time while nobody asks.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import quantile_test

from flyweight.runtime.llama_server import LlamaServer
from flyweight.runtime.open_model import find_model
from flyweight.runtime.threads import default_threads
from serving import Told, ask, cpu_seconds, memory, ours, started, theirs

CONTEXT = 1024
IDLE_SECONDS = 20.0
console = Console(highlight=False, width=120)


def middle(values: list[float], digits: int = 1) -> str:
    """A median with its 95 % interval, by order statistics."""
    found = quantile_test(values, p=0.5).confidence_interval(0.95)
    low, value, high = found.low, statistics.median(values), found.high
    return f"{value:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def prompt_of(number: int, length: int) -> list[int]:
    """Token ids that no other number has."""
    return [10 + (number * 31 + place * 7) % 200 for place in range(length)]


def bare(server: LlamaServer, prompt: list[int], written: int) -> Told:
    """The engine in this process, as the bare binding is called."""
    told, began = Told(200), time.perf_counter()

    def take(piece: dict[str, Any]) -> None:
        if piece["content"] and not told.first:
            told.first = time.perf_counter() - began
        told.tokens = piece.get("tokens_predicted") or told.tokens

    server.stream(
        {
            "prompt": prompt, "n_predict": written, "samplers": ["top_k"], "top_k": 1,
            "temperature": 0.0, "cache_prompt": True, "verbose": True,
            "response_fields": ["content", "tokens_predicted", "stop_type"],
        },
        take,
    )  # fmt: skip
    told.whole = time.perf_counter() - began
    return told


def body_of(prompt: list[int], written: int) -> dict[str, Any]:
    """The same for both servers."""
    return {
        "prompt": prompt, "max_tokens": written, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


def one_stream(options: argparse.Namespace, gguf: Path, threads: int) -> None:
    """The table of single streams."""
    taken: dict[str, list[Told]] = {"engine": [], "service": [], "llama.cpp's server": []}
    own = LlamaServer(gguf, CONTEXT, 1, threads=threads)
    ours_, theirs_ = ours(options.model, "--streams", "1"), theirs(gguf, 1, CONTEXT, threads)
    with started(ours_) as (mine, _), started(theirs_) as (other, _):
        for number in range(options.rounds + 1):
            prompt = prompt_of(number, options.prompt)
            asks = {
                "engine": lambda prompt=prompt: bare(own, prompt, options.written),
                "service": lambda prompt=prompt: asyncio.run(
                    ask(mine, "/v1/completions", body_of(prompt, options.written))
                ),
                "llama.cpp's server": lambda prompt=prompt: asyncio.run(
                    ask(other, "/v1/completions", body_of(prompt, options.written))
                ),
            }
            names = list(asks) if number % 2 else list(reversed(asks))
            for name in names:
                found = asks[name]()
                assert found.status == 200, name
                if number:  # the first warms up
                    taken[name].append(found)
    table = Table(title=f"One stream, n = {options.rounds}")
    for head in ("", "tokens/s", "first token, ms", "speed beside the engine", "ms later"):
        table.add_column(head, justify="right" if head else "left")
    for name, found in taken.items():
        speeds = [each.tokens / each.whole for each in found]
        firsts = [1000 * each.first for each in found if each.first]
        pairs = list(zip(found, taken["engine"], strict=True))
        ratio = [(a.tokens / a.whole) / (b.tokens / b.whole) for a, b in pairs]
        later = [1000 * (a.first - b.first) for a, b in pairs if a.first and b.first]
        table.add_row(name, middle(speeds, 0), middle(firsts), middle(ratio, 3), middle(later))
    console.print(table)


async def together(address: str, clients: int, written: int, round_: int) -> float:
    """Tokens a second of so many clients at once."""
    began = time.perf_counter()
    bodies = [body_of(prompt_of(round_ * clients + i, 16), written) for i in range(clients)]
    found = await asyncio.gather(*(ask(address, "/v1/completions", body) for body in bodies))
    assert all(each.status == 200 for each in found)
    return sum(each.tokens for each in found) / (time.perf_counter() - began)


def many_clients(options: argparse.Namespace, gguf: Path, threads: int) -> None:
    """The table of clients at once."""
    count = str(options.clients)
    speeds: dict[str, list[float]] = {"service": [], "llama.cpp's server": []}
    commands = {
        "service": ours(options.model, "--streams", count, "--context", str(CONTEXT)),
        "llama.cpp's server": theirs(gguf, options.clients, CONTEXT, threads),
    }
    with (
        started(commands["service"]) as (mine, _),
        started(commands["llama.cpp's server"]) as (other, _),
    ):
        for number in range(options.rounds + 1):
            for name, address in (("service", mine), ("llama.cpp's server", other)):
                found = asyncio.run(together(address, options.clients, options.written, number))
                if number:
                    speeds[name].append(found)
    ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
    for name, found in speeds.items():
        console.print(f"{options.clients} clients, {name}: {middle(found, 0)} tokens/s")
    console.print(f"service beside llama.cpp's server, n = {len(ratios)}: {middle(ratios, 3)}")


def cold(options: argparse.Namespace) -> None:
    """From the command to the end of a first answer, and what it takes when nobody asks."""
    chat = {"messages": [{"role": "user", "content": "pump 5 leaks"}], "max_tokens": 16}
    seconds, share, held = [], 0.0, 0
    for number in range(options.rounds):
        began = time.perf_counter()
        with started(ours(options.model)) as (address, process):
            assert asyncio.run(ask(address, "/v1/chat/completions", chat)).status == 200
            seconds.append(time.perf_counter() - began)
            if number == options.rounds - 1:
                time.sleep(1)
                before, since = cpu_seconds(process), time.perf_counter()
                time.sleep(IDLE_SECONDS)
                share = (cpu_seconds(process) - before) / (time.perf_counter() - since)
                held = memory(process)
    console.print(
        f"from the command to the end of a first answer, n = {len(seconds)}: {middle(seconds, 2)} "
        f"s; idle for {IDLE_SECONDS:.0f} s: {share:.2%} of a core, {held / 1e6:.0f} MB"
    )
    python = ["python3", "-c", "pass"]
    began = time.perf_counter()
    subprocess.run(python, check=True)
    console.print(f"(a bare Python: {time.perf_counter() - began:.2f} s)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--written", type=int, default=256)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    gguf = find_model(options.model).gguf
    threads = default_threads(gguf.stat().st_size)
    console.print(f"{options.model.name}: {gguf.name}, {threads} threads of the engine")
    one_stream(options, gguf, threads)
    many_clients(options, gguf, threads)
    cold(options)


if __name__ == "__main__":
    main()
