"""Answers and figures of a GGUF file, taken in a child process.

A child of its own, so that a crash in native code is an error here and nothing else, and so that
the peak memory is the engine's. The child (`python -m flyweight.runtime.measure`) reads its job as
JSON on stdin and prints one JSON object a line: progress, then the result.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flyweight.errors import EngineError

TIMED = 100  # prompts answered one after another, for the latency
STREAMS = 8  # at a time, for the others


@dataclass(frozen=True)
class Measurement:
    """What one file answered, and what that took on this machine, measured.

    Latencies are seconds a whole answer, prompt included, in one stream and with nothing reused
    from the prompt before. Peak memory is that of the process up to the end of the timed answers;
    `baseline_bytes` of it were there before the model was loaded (Python and the engine's code).
    """

    answers: list[list[int]]  # without the token that ended them, in the prompts' order
    stop_ids: list[int | None]  # the token that ended each; None: max_tokens did
    latency_p50: float
    latency_p95: float
    decode_tokens_per_second: float
    prompt_tokens_per_second: float
    peak_memory_bytes: int
    baseline_bytes: int
    load_seconds: float
    timed: int  # answers behind the latencies
    threads: int


def measure(
    gguf: Path,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    stop_ids: Collection[int] = (),
    *,
    threads: int | None = None,
    timed: int = TIMED,
    streams: int = STREAMS,
    timeout: float = 24 * 3600.0,
    on_answer: Callable[[], object] = lambda: None,
) -> Measurement:
    """Greedy answers to all prompts, with latency, speed and memory taken on the first `timed`.

    The answers beyond the timed ones are computed several at a time, which may turn a near tie the
    other way. `on_answer` is called once for each answer. Raises EngineError when the engine
    refuses the file, dies, or takes longer than `timeout` seconds.
    """
    job = {
        "gguf": str(gguf),
        "prompts": [list(prompt) for prompt in prompts],
        "max_tokens": max_tokens,
        "stop_ids": list(stop_ids),
        "threads": threads,
        "timed": timed,
        "streams": streams,
    }
    if not prompts:
        raise EngineError(f"{gguf}: nothing to measure, there are no prompts")
    return Measurement(**_run_child(gguf, job, timeout, on_answer))


def _run_child(
    gguf: Path, job: dict[str, Any], timeout: float, on_answer: Callable[[], object]
) -> dict[str, Any]:
    """The child's result, or its error as an EngineError."""
    said: dict[str, Any] = {}
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            [sys.executable, "-m", "flyweight.runtime.measure"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        expired = threading.Event()
        timer = threading.Timer(timeout, lambda: (expired.set(), child.kill()))
        timer.start()
        try:
            said = _listen(child, job, on_answer)
            status = child.wait()
        finally:
            timer.cancel()
            child.kill()  # an exception here must not leave it running; a finished one ignores it
            child.wait()
        if "result" in said:
            return said["result"]
        if "error" in said:
            raise EngineError(said["error"])
        if expired.is_set():
            raise EngineError(f"{gguf}: not done after {timeout:.0f} s; use fewer prompts")
        complaints.seek(0)
        words = complaints.read().decode(errors="replace").strip() or "it left no message"
        raise EngineError(f"{gguf}: the engine died (status {status}): {words.splitlines()[-1]}")


def _listen(
    child: subprocess.Popen[str], job: dict[str, Any], on_answer: Callable[[], object]
) -> dict[str, Any]:
    """Give the child its job and collect what it says but for its progress."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        json.dump(job, child.stdin)
        child.stdin.close()
    except BrokenPipeError:
        pass  # it is dead already; the caller says why
    said: dict[str, Any] = {}
    for line in child.stdout:
        try:
            message = json.loads(line)
        except ValueError:
            continue  # native code that prints
        if "answer" in message:
            on_answer()
        else:
            said |= message
    return said


def _measure_here(job: dict[str, Any]) -> dict[str, Any]:
    """In the child: the timed answers in one stream, then the rest in several."""
    import xllamacpp  # noqa: F401  its code is part of the baseline, not of the model

    from flyweight.runtime.llama import LlamaEngine

    def done() -> None:
        sys.stdout.write('{"answer": 1}\n')  # in one piece: several threads write here
        sys.stdout.flush()

    gguf, prompts, max_tokens = Path(job["gguf"]), job["prompts"], job["max_tokens"]
    context = max(len(prompt) for prompt in prompts) + max_tokens
    timed = min(job["timed"], len(prompts))
    baseline, started = _memory("VmRSS"), time.perf_counter()
    with LlamaEngine(gguf, context=context, threads=job["threads"]) as engine:
        load_seconds, threads = time.perf_counter() - started, engine.threads
        engine.generate(prompts[0], max_tokens)  # the first one pays for page faults
        generations, latencies = [], []
        for prompt in prompts[:timed]:
            started = time.perf_counter()
            generations.append(engine.generate(prompt, max_tokens, stop_ids=job["stop_ids"]))
            latencies.append(time.perf_counter() - started)
            done()
        peak = _memory("VmHWM")
    figures = _figures(generations, latencies)
    if timed < len(prompts):
        with LlamaEngine(
            gguf, context=context, threads=job["threads"], streams=job["streams"]
        ) as engine:
            generations += engine.generate_many(
                prompts[timed:], max_tokens, stop_ids=job["stop_ids"], on_done=done
            )
    measurement = Measurement(
        answers=[generation.ids for generation in generations],
        stop_ids=[generation.stop_id for generation in generations],
        peak_memory_bytes=peak,
        baseline_bytes=baseline,
        load_seconds=load_seconds,
        timed=timed,
        threads=threads,
        **figures,
    )
    return asdict(measurement)


def _figures(generations: list[Any], latencies: list[float]) -> dict[str, float]:
    """Latency percentiles and rates; a rate is tokens over the engine's own time for them."""
    in_order = sorted(latencies)
    # the first written token comes out of the prompt's pass, so it is no decoding step
    steps = sum(generation.written - 1 for generation in generations)
    prompt_tokens = sum(generation.prompt_tokens for generation in generations)
    seconds = sum(generation.seconds for generation in generations)
    prompt_seconds = sum(generation.prompt_seconds for generation in generations)
    return {
        "latency_p50": _percentile(in_order, 0.50),
        "latency_p95": _percentile(in_order, 0.95),
        "decode_tokens_per_second": steps / seconds if seconds else 0.0,
        "prompt_tokens_per_second": prompt_tokens / prompt_seconds if prompt_seconds else 0.0,
    }


def _percentile(in_order: list[float], share: float) -> float:
    """The smallest value that at least `share` of the sorted values do not exceed."""
    return in_order[max(0, -int(-len(in_order) * share // 1) - 1)]


def _memory(key: str) -> int:
    """This process's VmRSS or VmHWM in bytes (Linux), elsewhere the peak so far."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows counts neither for free
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _main() -> None:
    try:
        said = {"result": _measure_here(json.load(sys.stdin))}
    except EngineError as error:
        said = {"error": str(error)}
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    _main()

__all__ = ["STREAMS", "TIMED", "Measurement", "measure"]
