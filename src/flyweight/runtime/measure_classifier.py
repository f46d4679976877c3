"""Labels that an encoder gives, and what that takes, in a child process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flyweight.energy.meter import meter
from flyweight.errors import EngineError
from flyweight.runtime.child import answer_parent, memory_of, percentile, run_child, say_answer
from flyweight.runtime.classify import extra, open_classifier
from flyweight.sticker_card import Metered

TIMED = 100  # texts classified one after another, for the latency
BATCH = 32  # at a time, for the speed


@dataclass(frozen=True)
class Classified:
    """The label that one model gave each text, and what that took on this machine, measured.

    All texts are classified one at a time, of which the first `timed` give the latencies (seconds)
    and the memory (as in `measure.Measurement`): in a file of 8 bits what shares a batch changes
    what is said of a text a little.
    """

    labels: list[int]
    latency_p50: float
    latency_p95: float
    texts_per_second: float  # in batches of BATCH
    peak_memory_bytes: int
    baseline_bytes: int
    load_seconds: float
    timed: int  # texts behind the latencies
    threads: int
    metered: Metered  # the energy of the timed texts


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
    said = run_child(__name__, model, job, timeout, on_answer)
    return Classified(**{**said, "metered": Metered.model_validate(said["metered"])})


def _measure_here(job: dict[str, Any]) -> dict[str, Any]:
    """In the child: all texts one by one, as a user asks, then some in batches, for the speed."""
    model, texts = Path(job["model"]), job["texts"]
    _import_engine(model)
    timed = min(job["timed"], len(texts))
    baseline, started = memory_of("VmRSS"), time.perf_counter()
    engine = open_classifier(model, threads=job["threads"])
    load_seconds = time.perf_counter() - started
    engine.logits(texts[0])  # the first one pays for page faults
    latencies, labels, accounts = [], [], []
    with meter() as running:
        running.calm()
        for text in texts[:timed]:
            started = time.perf_counter()
            with running.answer(len(text)) as account:
                labels.append(int(engine.logits(text).argmax()))
                account.read(len(text))
            latencies.append(time.perf_counter() - started)
            accounts.append(account)
            say_answer()
    peak, metered = memory_of("VmHWM"), running.mean(accounts)
    for text in texts[timed:]:
        labels.append(int(engine.logits(text).argmax()))
        say_answer()
    in_order = sorted(latencies)
    found = Classified(
        labels=labels,
        latency_p50=percentile(in_order, 0.50),
        latency_p95=percentile(in_order, 0.95),
        texts_per_second=_in_batches(engine, texts[:timed]),
        peak_memory_bytes=peak,
        baseline_bytes=baseline,
        load_seconds=load_seconds,
        timed=timed,
        threads=engine.threads,
        metered=metered,
    )
    return asdict(found) | {"metered": metered.model_dump()}


def _import_engine(model: Path) -> None:
    """Its code is part of the baseline, not of the model."""
    if model.is_dir():
        from flyweight.checkpoint import open_checkpoint

        _ = open_checkpoint(model).family.loader  # imports torch as well
    else:
        with extra():
            import onnxruntime  # noqa: F401


def _in_batches(engine: Any, texts: Sequence[Sequence[int]]) -> float:
    """Texts a second, those of like length together."""
    ordered = sorted(texts, key=len)
    started = time.perf_counter()
    for first in range(0, len(ordered), BATCH):
        engine.batch(ordered[first : first + BATCH])
    return len(ordered) / (time.perf_counter() - started)


if __name__ == "__main__":
    answer_parent(_measure_here)

__all__ = ["BATCH", "TIMED", "Classified", "measure_classifier"]
