"""What a service does, measured from outside: what benchmarks of `flyweight serve` share."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# llama.cpp's own HTTP server, as its binding starts it
PEER = """
import signal, sys, time
import xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, streams, context, threads = sys.argv[1], *map(int, sys.argv[2:5])
parameters.n_parallel, parameters.n_ctx = streams, streams * context
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
parameters.verbosity, parameters.cache_ram_mib = -1, 0
server = xllamacpp.Server(parameters)
print("on", server.listening_address, flush=True)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
time.sleep(1e6)
"""


@dataclass
class Told:
    """One request from outside: seconds from when it was sent."""

    status: int
    text: str = ""
    tokens: int = 0
    first: float = 0.0  # until its first text
    whole: float = 0.0


@contextmanager
def started(command: Sequence[str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process that tells where it listens, ended at the end."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        while not (found := re.search(r"on (http://[\w.:]+)", process.stdout.readline() or "!")):
            assert process.poll() is None, "it ended before it listened"
        yield found[1], process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ours(model: Path, *options: str) -> list[str]:
    """The command that serves a model."""
    return [sys.executable, "-u", "-m", "flyweight", "serve", str(model), "--port", "0", *options]


def theirs(gguf: Path, streams: int, context: int, threads: int) -> list[str]:
    """The command of llama.cpp's own server."""
    return [sys.executable, "-c", PEER, str(gguf), str(streams), str(context), str(threads)]


async def ask(address: str, path: str, body: dict[str, Any], *, patience: float = 300) -> Told:
    """A request over a connection of its own, streamed or not; an own client, that costs little."""
    place = urlsplit(address)
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        async with asyncio.timeout(patience):
            return await _ask(reader, writer, path, body, began)
    finally:
        writer.close()


async def _ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    path: str,
    body: dict[str, Any],
    began: float,
) -> Told:
    sent = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(sent)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + sent)
    await writer.drain()
    status = int((await reader.readline()).split()[1])
    told = Told(status)
    while (await reader.readline()).strip():
        pass
    last, texts, done = b"", [], False
    while line := await reader.readline():
        done = done or line.startswith(b"data: [DONE]")
        if line.startswith(b"data: {"):
            if not told.first and b'"finish_reason": null' in line.replace(b":null", b": null"):
                piece = _text(json.loads(line[6:]))
                told.first = time.perf_counter() - began if piece else 0.0
            texts.append(line)
        elif line.strip() and not line.startswith(b"data:") and len(line) > 12:
            last = line
    told.whole = time.perf_counter() - began
    if not (done or last):
        raise asyncio.IncompleteReadError(b"", None)  # cut in the middle
    events = [json.loads(each[6:]) for each in texts] or ([json.loads(last)] if last else [])
    for event in events:
        told.text += _text(event)
        usage = event.get("usage")
        told.tokens = usage["completion_tokens"] if usage else told.tokens
    return told


def _text(event: dict[str, Any]) -> str:
    for choice in event.get("choices", []):
        said = choice.get("delta") or choice.get("message") or choice
        return said.get("content") or said.get("text") or ""
    return ""


def memory(process: subprocess.Popen[str], field: str = "VmRSS") -> int:
    """Bytes that a process holds."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    told = next(line for line in lines if line.startswith(field))
    return int(told.split()[1]) * 1024


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """Seconds of processor that a process has taken."""
    import os

    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


__all__ = ["Told", "ask", "cpu_seconds", "memory", "ours", "started", "theirs"]
