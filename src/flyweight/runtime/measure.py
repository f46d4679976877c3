"""Answers and figures of a GGUF file, taken in a child process.

A child of its own (child.py), so that the peak memory is the engine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flyweight.energy.meter import meter
from flyweight.errors import EngineError
from flyweight.runtime.child import answer_parent, memory_of, percentile, run_child, say_answer
from flyweight.runtime.engine import Generation
from flyweight.sticker_card import Metered

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
    metered: Metered  # the energy of the timed answers

    @classmethod
    def told(cls, said: dict[str, Any]) -> Measurement:
        """What a child has said."""
        return cls(**{**said, "metered": Metered.model_validate(said["metered"])})

    def say(self) -> dict[str, Any]:
        """For `told`, in a child."""
        return asdict(self) | {"metered": self.metered.model_dump()}


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
    return Measurement.told(run_child(__name__, gguf, job, timeout, on_answer))


def _measure_here(job: dict[str, Any]) -> dict[str, Any]:
    """In the child: the timed answers in one stream, then the rest in several."""
    import xllamacpp  # noqa: F401  its code is part of the baseline, not of the model

    from flyweight.runtime.llama import LlamaEngine

    gguf, prompts, max_tokens = Path(job["gguf"]), job["prompts"], job["max_tokens"]
    context = max(len(prompt) for prompt in prompts) + max_tokens
    timed = min(job["timed"], len(prompts))
    baseline, started = memory_of("VmRSS"), time.perf_counter()
    with LlamaEngine(gguf, context=context, threads=job["threads"]) as engine:
        load_seconds, threads = time.perf_counter() - started, engine.threads
        engine.generate(prompts[0], max_tokens)  # the first one pays for page faults

        def ask(place: int) -> Generation:
            return engine.generate(prompts[place], max_tokens, stop_ids=job["stop_ids"])

        generations, figures = one_by_one(ask, [len(prompt) for prompt in prompts[:timed]])
    if timed < len(prompts):
        with LlamaEngine(
            gguf, context=context, threads=job["threads"], streams=job["streams"]
        ) as engine:
            generations += engine.generate_many(
                prompts[timed:], max_tokens, stop_ids=job["stop_ids"], on_done=say_answer
            )
    measurement = Measurement(
        answers=[generation.ids for generation in generations],
        stop_ids=[generation.stop_id for generation in generations],
        baseline_bytes=baseline,
        load_seconds=load_seconds,
        timed=timed,
        threads=threads,
        **figures,
    )
    return measurement.say()


def one_by_one(
    ask: Callable[[int], Generation], lengths: Sequence[int]
) -> tuple[list[Generation], dict[str, Any]]:
    """Answers in one stream, `ask(i)` to a prompt of `lengths[i]` tokens, and what they took.

    The latter are fields of a Measurement, the peak memory so far among them.
    """
    generations, latencies, accounts = [], [], []
    with meter() as running:
        running.calm()
        for place, length in enumerate(lengths):
            started = time.perf_counter()
            with running.answer(length) as account:
                answer = ask(place)
                account.whole(answer.prompt_tokens, answer.written)
            latencies.append(time.perf_counter() - started)
            generations.append(answer)
            accounts.append(account)
            say_answer()
    figures: dict[str, Any] = {
        **_figures(generations, latencies),
        "peak_memory_bytes": memory_of("VmHWM"),
        "metered": running.mean(accounts, _read_share(generations)),
    }
    return generations, figures


def _figures(generations: list[Generation], latencies: list[float]) -> dict[str, float]:
    """Latency percentiles and rates; a rate is tokens over the engine's own time for them."""
    in_order = sorted(latencies)
    # the first written token comes out of the prompt's pass, so it is no decoding step
    steps = sum(generation.written - 1 for generation in generations)
    prompt_tokens = sum(generation.prompt_tokens for generation in generations)
    seconds = sum(generation.seconds for generation in generations)
    prompt_seconds = sum(generation.prompt_seconds for generation in generations)
    return {
        "latency_p50": percentile(in_order, 0.50),
        "latency_p95": percentile(in_order, 0.95),
        "decode_tokens_per_second": steps / seconds if seconds else 0.0,
        "prompt_tokens_per_second": prompt_tokens / prompt_seconds if prompt_seconds else 0.0,
    }


def _read_share(generations: list[Generation]) -> float:
    """The share of the engine's time that it read prompts in: it tells so only afterwards."""
    read = sum(generation.prompt_seconds for generation in generations)
    whole = read + sum(generation.seconds for generation in generations)
    return read / whole if whole else 1.0


if __name__ == "__main__":
    answer_parent(_measure_here)

__all__ = ["STREAMS", "TIMED", "Measurement", "measure", "one_by_one"]
