"""Does the service stay right and steady at four times what it can do, with clients that misbehave?

    python benchmarks/load.py --model out/demo --task out/demo-task.jsonl
    python benchmarks/load.py --model out/demo --task out/demo-task.jsonl --requests 1000

What the service can do is measured first (requests a second of clients that fill its streams). Then
requests arrive at four times that rate: whole, streamed, read slowly, or left in the middle. Half
way the service is killed with SIGKILL and started again. Every answer is compared with the
engine's own to the same ids alone; where several streams are computed together the order of sums
differs, and an answer that parts from it at a near tie is counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import Progress

from flyweight.runtime.chat_format import ChatFormat
from flyweight.runtime.engine import Generation
from flyweight.runtime.open_model import open_model
from flyweight.runtime.parity import NEAR_TIE_NATS
from serving import ask, memory, ours, started

WRITTEN = 48
KINDS = {"whole": 0.6, "streamed": 0.3, "slow": 0.05, "gone": 0.05}
console = Console(highlight=False, width=120)


@dataclass
class Count:
    """What came of all requests."""

    killed: str = ""  # the address of the service that was killed
    statuses: Counter[str] = field(default_factory=Counter)
    right: int = 0
    ties: int = 0
    wrong: list[tuple[str, str, str]] = field(default_factory=list)
    memory: list[tuple[int, int]] = field(default_factory=list)  # requests done, bytes
    seconds: list[float] = field(default_factory=list)


def references(model: Path, prompts: list[str]) -> dict[str, Generation]:
    """The engine's own answer to each conversation (JSON), one stream."""
    engine, found = open_model(model)
    with engine:
        form = ChatFormat.of(engine, found.gguf, found.folder)
        ids = {text: form.prompt(json.loads(text)) for text in prompts}
        return {text: engine.generate(each, WRITTEN, top=2) for text, each in ids.items()}


def near_tie(text: str, wanted: Generation, model_ids: Any) -> bool:
    """Whether an answer parts from the wanted one where its two best tokens are near."""
    place = 0
    for token, best in zip(wanted.ids, wanted.top, strict=False):
        piece = model_ids(token)
        if text[place : place + len(piece)] != piece:
            return bool(best) and len(best) > 1 and best[0][1] - best[1][1] <= NEAR_TIE_NATS
        place += len(piece)
    return True  # it only goes on, or ends, otherwise than the last token


async def one(
    address: str, kind: str, prompt: str, count: Count, wanted: Generation, pieces: Any
) -> None:
    """One request of one kind."""
    body = {"messages": json.loads(prompt), "max_tokens": WRITTEN}
    try:
        if kind in ("gone", "slow"):
            await misbehave(address, body, kind)
            count.statuses[kind] += 1
            return
        told = await ask(address, "/v1/chat/completions", body | {"stream": kind == "streamed"})
    except (OSError, ValueError, IndexError, asyncio.IncompleteReadError):
        when = "by the kill" if address == count.killed else "otherwise"
        count.statuses[f"cut off {when}"] += 1
        return
    count.statuses[str(told.status)] += 1
    if told.status == 200:
        count.seconds.append(told.whole)
        if told.text == wanted.text:
            count.right += 1
        elif near_tie(told.text, wanted, pieces):
            count.ties += 1
        else:
            count.wrong.append((prompt, wanted.text, told.text))


async def misbehave(address: str, body: dict[str, Any], kind: str) -> None:
    """Go in the middle of a stream, or read it letter by letter."""
    place, sent = urlsplit(address), json.dumps(body | {"stream": True}).encode()
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=256)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(sent)}"
    writer.write(f"{head}\r\nContent-Type: application/json\r\n\r\n".encode() + sent)
    await reader.read(16)
    for _ in range(20 if kind == "slow" else 0):
        if not await reader.read(64):
            break
        await asyncio.sleep(0.1)
    writer.close()


async def capacity(address: str, prompts: list[str], streams: int) -> float:
    """Requests a second that a full service answers."""
    done, until = 0, time.perf_counter() + 8

    async def client(number: int) -> None:
        nonlocal done
        draw = random.Random(number)
        while time.perf_counter() < until:
            body = {"messages": json.loads(draw.choice(prompts))}
            await ask(address, "/v1/chat/completions", body | {"max_tokens": WRITTEN})
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(2 * streams)))
    return done / (time.perf_counter() - began)


async def storm(
    options: argparse.Namespace, address: str, process: Any, rate: float, first: int, count: Count,
    answers: dict[str, Generation], pieces: Any, progress: Progress,
) -> None:  # fmt: skip
    """Half of the requests, arriving at `rate` a second, whatever becomes of them."""
    draw = random.Random(first)
    task = progress.add_task(f"requests from {first:,}", total=options.requests // 2)
    prompts, waiting = list(answers), set[asyncio.Task[None]]()
    began = time.perf_counter()
    for number in range(options.requests // 2):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        kind = draw.choices(list(KINDS), list(KINDS.values()))[0]
        prompt = draw.choice(prompts)
        job = asyncio.create_task(one(address, kind, prompt, count, answers[prompt], pieces))
        waiting.add(job)
        job.add_done_callback(waiting.discard)
        progress.advance(task)
        if number % 100 == 99:
            count.memory.append((first + number + 1, memory(process)))
    if first == 0:
        count.killed = address
        process.send_signal(signal.SIGKILL)  # with requests in flight
    await asyncio.gather(*waiting)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--queue", type=int, default=16)
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.task.read_text().splitlines()]
    chats = [
        each.get("messages") or [{"role": "user", "content": each["prompt"]}] for each in lines
    ]
    prompts = list(dict.fromkeys(map(json.dumps, chats)))[:200]
    answers = references(options.model, prompts)
    engine, _ = open_model(options.model)
    count = Count()
    texts: dict[int, str] = {}

    def piece(token: int) -> str:
        if token not in texts:
            texts[token] = engine.detokenize([token])
        return texts[token]

    command = ours(options.model, "--streams", str(options.streams), "--queue", str(options.queue))
    with Progress(console=console, transient=True) as progress:
        for half in (0, 1):
            with started(command) as (address, process):
                most = asyncio.run(capacity(address, prompts, options.streams))
                count.memory.append((half * options.requests // 2, memory(process)))
                console.print(f"it answers {most:.1f} requests a second; {4 * most:.1f} arrive")
                asyncio.run(
                    storm(options, address, process, 4 * most, half * options.requests // 2,
                          count, answers, piece, progress)
                )  # fmt: skip
    engine.close()
    told = ", ".join(f"{name}: {number:,}" for name, number in count.statuses.most_common())
    console.print(f"{options.requests:,} requests: {told}")
    console.print(
        f"of {count.right + count.ties + len(count.wrong):,} answers {count.right:,} are the "
        f"engine's own, {count.ties:,} part from it at a near tie, {len(count.wrong):,} are wrong"
    )
    for prompt, wanted, found in count.wrong[:5]:
        console.print(f"  {prompt!r}\n    wanted {wanted!r}\n    found  {found!r}")
    tail = max(1, len(count.seconds) // 100)
    console.print(
        f"an answer took {statistics.median(count.seconds):.2f} s in the middle, "
        f"{sorted(count.seconds)[-tail]:.2f} s at 99 %"
    )
    half = options.requests // 2
    for name, low, high in (("before the kill", 1, half), ("after it", half + 1, 2 * half)):
        held = [each for at, each in count.memory if low <= at <= high]
        fifth = max(1, len(held) // 5)
        fifths = [statistics.mean(held[at : at + fifth]) for at in range(0, 5 * fifth, fifth)]
        console.print(
            f"memory {name}, fifth by fifth: "
            + ", ".join(f"{each / 1e6:.1f}" for each in fifths)
            + f" MB (first to last {fifths[-1] / fifths[0] - 1:+.1%})"
        )


if __name__ == "__main__":
    main()
