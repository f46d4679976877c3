"""Labels that an encoder gives, and what that takes, in a child process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import EngineError
from flyweight.runtime.child import answer_parent, memory_of, percentile, run_child, say_answer
from flyweight.runtime.classify import extra, open_classifier

TIMED = 100  # texts classified one after another, for the latency
BATCH = 32  # at a time, for the others


@dataclass(frozen=True)
class Classified:
    """The label that one model gave each text, and what that took on this machine, measured.

    Latencies are seconds a text, one at a time; memory as in `measure.Measurement`.
    """

    labels: list[int]
    latency_p50: float
    latency_p95: float
    texts_per_second: float  # in batches
    peak_memory_bytes: int
    baseline_bytes: int
    load_seconds: float
    timed: int  # texts behind the latencies
    threads: int


def measure_classifier(
    model: Path,
    texts: Sequence[Sequence[int]],
    *,
    threads: int | None = None,
    timed: int = TIMED,
    timeout: float = 24 * 3600.0,
    on_answer: Callable[[], object] = lambda: None,
) -> Classified:
    """Classify all texts (token ids) with an ONNX file, or with a checkpoint folder in torch.

    `on_answer` is called once for each text. Raises EngineError when the engine refuses the model,
    dies, or takes longer than `timeout` seconds.
    """
    if not texts:
        raise EngineError(f"{model}: nothing to measure, there are no texts")
    rows = [list(text) for text in texts]
    job = {"model": str(model), "texts": rows, "threads": threads, "timed": timed}
    return Classified(**run_child(__name__, model, job, timeout, on_answer))


def _measure_here(job: dict[str, Any]) -> dict[str, Any]:
    """In the child: the timed texts one by one, then all in batches."""
    model, texts = Path(job["model"]), job["texts"]
    _import_engine(model)
    timed = min(job["timed"], len(texts))
    baseline, started = memory_of("VmRSS"), time.perf_counter()
    engine = open_classifier(model, threads=job["threads"])
    load_seconds = time.perf_counter() - started
    engine.logits(texts[0])  # the first one pays for page faults
    latencies, labels = [], []
    for text in texts[:timed]:
        started = time.perf_counter()
        labels.append(int(engine.logits(text).argmax()))
        latencies.append(time.perf_counter() - started)
        say_answer()
    peak = memory_of("VmHWM")
    rest, seconds = _in_batches(engine, texts[timed:] or texts)
    if timed < len(texts):
        labels += rest
        for _ in rest:
            say_answer()
    in_order = sorted(latencies)
    return asdict(
        Classified(
            labels=labels,
            latency_p50=percentile(in_order, 0.50),
            latency_p95=percentile(in_order, 0.95),
            texts_per_second=len(rest) / seconds,
            peak_memory_bytes=peak,
            baseline_bytes=baseline,
            load_seconds=load_seconds,
            timed=timed,
            threads=engine.threads,
        )
    )


def _import_engine(model: Path) -> None:
    """Its code is part of the baseline, not of the model."""
    if model.is_dir():
        import transformers  # noqa: F401
    else:
        with extra():
            import onnxruntime  # noqa: F401


def _in_batches(engine: Any, texts: Sequence[Sequence[int]]) -> tuple[list[int], float]:
    """The labels of texts, those of like length together, and the seconds that took."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    labels = np.zeros(len(texts), dtype=int)
    started = time.perf_counter()
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        labels[places] = engine.batch([texts[place] for place in places]).argmax(1)
    return labels.tolist(), time.perf_counter() - started


if __name__ == "__main__":
    answer_parent(_measure_here)

__all__ = ["BATCH", "TIMED", "Classified", "measure_classifier"]
