"""Answers about pictures and what they take, in a child process, as runtime/measure.py has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flyweight.errors import EngineError
from flyweight.runtime.child import answer_parent, memory_of, run_child, say_answer
from flyweight.runtime.engine import Generation
from flyweight.runtime.measure import TIMED, Measurement, one_by_one


def measure_eyes(
    folder: Path,
    bits: int,
    prompts: Sequence[tuple[Sequence[int], Path | None]],
    max_tokens: int,
    *,
    timed: int = TIMED,
    timeout: float = 24 * 3600.0,
    on_answer: Callable[[], object] = lambda: None,
) -> Measurement:
    """Greedy answers to prompts, each with its picture, from a Mllama folder at 32 or 8 bits.

    Each of the timed ones looks at its picture anew, which its latency holds and the rates do not.
    `on_answer` is called once for each. Raises EngineError where the engine dies, or ImageError for
    a picture that cannot be read.
    """
    if not prompts:
        raise EngineError(f"{folder}: nothing to measure, there are no prompts")
    job = {
        "folder": str(folder),
        "bits": bits,
        "prompts": [[list(ids), picture and str(picture)] for ids, picture in prompts],
        "max_tokens": max_tokens,
        "timed": timed,
    }
    return Measurement.told(run_child(__name__, folder, job, timeout, on_answer))


def _measure_here(job: dict[str, Any]) -> dict[str, Any]:
    """In the child: the timed answers, each with a look of its own, then the rest."""
    from flyweight.vision.engine import VisionEngine

    prompts, most = job["prompts"], job["max_tokens"]
    context = max(len(ids) for ids, _ in prompts) + most
    timed = min(job["timed"], len(prompts))
    baseline, started = memory_of("VmRSS"), time.perf_counter()
    engine = VisionEngine(Path(job["folder"]), context=context, bits=job["bits"])
    with engine:
        load_seconds = time.perf_counter() - started
        _ask(engine, prompts[0], most)  # the first one pays for page faults

        def ask(place: int) -> Generation:
            engine.forget()
            return _ask(engine, prompts[place], most)

        generations, figures = one_by_one(ask, [len(ids) for ids, _ in prompts[:timed]])
        for prompt in prompts[timed:]:
            generations.append(_ask(engine, prompt, most))
            say_answer()
        return Measurement(
            answers=[each.ids for each in generations],
            stop_ids=[each.stop_id for each in generations],
            baseline_bytes=baseline,
            load_seconds=load_seconds,
            timed=timed,
            threads=engine.threads,
            **figures,
        ).say()


def _ask(engine: Any, prompt: tuple[Sequence[int], str | None], most: int) -> Generation:
    from flyweight.vision.images import open_image

    ids, picture = prompt
    engine.see(None if picture is None else open_image(Path(picture)))
    return engine.generate(ids, max(1, min(most, engine.context - len(ids))))


if __name__ == "__main__":
    answer_parent(_measure_here)

__all__ = ["measure_eyes"]
