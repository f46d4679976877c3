"""onnxruntime-genai on one model, for genai.py; runs in an environment of its own, told what to do
by a line of JSON, and answers with one.

As in its own examples: greedy, keys and values in one buffer, several prompts as one batch that
begins and ends together. Warm-up and repetition are those of `flyweight.runtime.engine_speed`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai

LONG_ENOUGH, TRIES = 0.5, 16  # seconds of each kind of work, and times at most


def generate(model: Any, prompts: np.ndarray, written: int) -> tuple[float, float]:
    """Seconds to the first tokens after prompts [B, T], and from there to the last."""
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(
        do_sample=False, max_length=prompts.shape[1] + written, batch_size=len(prompts)
    )
    started = time.perf_counter()
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(prompts)
    generator.generate_next_token()
    first = time.perf_counter()
    for _ in range(written - 1):
        if generator.is_done():
            raise RuntimeError("a random model ended an answer: give it another seed")
        generator.generate_next_token()
    return first - started, time.perf_counter() - first


def repeated(work: Callable[[], tuple[float, float]]) -> list[tuple[float, float]]:
    """A first time warms up, and counts where it was far longer than LONG_ENOUGH."""
    first = work()
    if sum(first) > 4 * LONG_ENOUGH:
        return [first]
    found: list[tuple[float, float]] = []
    while sum(map(sum, found)) < LONG_ENOUGH and len(found) < TRIES:
        found.append(work())
    return found


def measured(told: dict[str, Any]) -> dict[str, Any]:
    """Tokens a second of each kind of work, and the peak of this process."""
    config = onnxruntime_genai.Config(told["folder"])
    options = {"intra_op_num_threads": told["threads"]}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    model = onnxruntime_genai.Model(config)
    draw = np.random.default_rng(told["seed"])

    def prompts(count: int, tokens: int) -> np.ndarray:
        return draw.choice(told["common"], (count, tokens)).astype(np.int32)

    short, written = told["short"], told["written"]
    generate(model, prompts(1, short), min(8, written))  # pays for page faults
    one = repeated(lambda: generate(model, prompts(1, short), written))
    long = repeated(lambda: generate(model, prompts(1, told["prompt"]), 1))
    memory = peak()
    batches = {}
    for streams in told["streams"]:
        many = repeated(lambda streams=streams: generate(model, prompts(streams, short), written))
        batches[streams] = streams * written * len(many) / sum(map(sum, many))
    return {
        "stream": (written - 1) * len(one) / sum(seconds for _, seconds in one),
        "prompt": told["prompt"] * len(long) / sum(seconds for seconds, _ in long),
        "batches": batches,
        "memory": memory,
    }


def peak() -> int:
    """Bytes of this process at most (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    print(json.dumps(measured(json.loads(sys.stdin.readline()))))
