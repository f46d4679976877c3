"""Answers about pictures and what they take, in a child process, as runtime/measure.py has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flyweight.energy.meter import meter
from flyweight.errors import EngineError
from flyweight.runtime.child import answer_parent, memory_of, percentile, run_child, say_answer
from flyweight.runtime.measure import TIMED
from flyweight.sticker_card import Metered


@dataclass(frozen=True)
class Looked:
    """What a folder answered about pictures, and what that took on this machine, measured.

    Latencies are seconds a whole answer, with the look at the picture, which is taken anew for each
    of the timed ones; rates leave it out.
    """

    answers: list[list[int]]  # without the token that ended them, in the prompts' order
    stop_ids: list[int | None]  # the token that ended each; None: max_tokens did
    latency_p50: float
    latency_p95: float
    tokens_per_second: float
    prompt_tokens_per_second: float
    peak_memory_bytes: int
    threads: int
    metered: Metered


def measure_eyes(
    folder: Path,
    bits: int,
    prompts: Sequence[tuple[Sequence[int], Path | None]],
    max_tokens: int,
    *,
    timed: int = TIMED,
    timeout: float = 24 * 3600.0,
    on_answer: Callable[[], object] = lambda: None,
) -> Looked:
    """Greedy answers to prompts, each with its picture, from a Mllama folder at 32 or 8 bits.

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
    said = run_child(__name__, folder, job, timeout, on_answer)
    return Looked(**{**said, "metered": Metered.model_validate(said["metered"])})


def _measure_here(job: dict[str, Any]) -> dict[str, Any]:
    """In the child: the timed answers, each with a look of its own, then the rest."""
    from flyweight.vision.engine import VisionEngine

    prompts, most = job["prompts"], job["max_tokens"]
    context = max(len(ids) for ids, _ in prompts) + most
    engine = VisionEngine(Path(job["folder"]), context=context, bits=job["bits"])
    with engine:
        _ask(engine, prompts[0], most)  # the first one pays for page faults
        timed, latencies, accounts = [], [], []
        with meter() as running:
            running.calm()
            for prompt in prompts[: job["timed"]]:
                engine.forget()
                started = time.perf_counter()
                with running.answer(len(prompt[0])) as account:
                    timed.append(_ask(engine, prompt, most))
                    account.whole(timed[-1].prompt_tokens, timed[-1].written)
                latencies.append(time.perf_counter() - started)
                accounts.append(account)
                say_answer()
        peak, threads = memory_of("VmHWM"), engine.threads
        rest = []
        for prompt in prompts[job["timed"] :]:
            rest.append(_ask(engine, prompt, most))
            say_answer()
    reading, writing = (sum(getattr(each, name) for each in timed) for name in
                        ("prompt_seconds", "seconds"))  # fmt: skip
    metered = running.mean(accounts, reading / max(reading + writing, 1e-9))
    in_order = sorted(latencies)
    found = Looked(
        answers=[each.ids for each in (*timed, *rest)],
        stop_ids=[each.stop_id for each in (*timed, *rest)],
        latency_p50=percentile(in_order, 0.50),
        latency_p95=percentile(in_order, 0.95),
        tokens_per_second=sum(each.written - 1 for each in timed) / writing if writing else 0.0,
        prompt_tokens_per_second=sum(each.prompt_tokens for each in timed) / max(reading, 1e-9),
        peak_memory_bytes=peak,
        threads=threads,
        metered=metered,
    )
    return asdict(found) | {"metered": metered.model_dump()}


def _ask(engine: Any, prompt: tuple[Sequence[int], str | None], most: int) -> Any:
    from flyweight.vision.images import open_image

    ids, picture = prompt
    engine.see(None if picture is None else open_image(Path(picture)))
    return engine.generate(ids, most)


if __name__ == "__main__":
    answer_parent(_measure_here)

__all__ = ["Looked", "measure_eyes"]
