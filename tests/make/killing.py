"""Runs of `make` that are killed at random moments, for the tests and benchmarks/kills.py."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flyweight.folder import read_card, read_scores, sha256_of
from flyweight.make.journal import Journal
from flyweight.make.store import work_folder

# A server that has the heavy imports behind it: each run starts as a fork of it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["flyweight.make.run", "flyweight.make.verb", "transformers"])
Job = dict[str, Any]


def _make(job: Job, state: str, log: str, dying: bool) -> None:
    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["FLYWEIGHT_STATE"] = state
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    import flyweight
    from flyweight.make import handover

    if dying:
        handover.write_report = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    flyweight.make(**job)


def run(
    job: Job,
    place: Path,
    now: Callable[[], bool] | None = None,
    later: float = 0.0,
    signal_number: int = signal.SIGKILL,
    *,
    dying: bool = False,
) -> bool:
    """Run `make` into `place`/out; True: it ended by itself.

    It is sent the signal `later` seconds after `now` comes true, or kills itself, `dying`, when it
    has all but handed over.
    """
    told = (job | {"out": place / "out"}, str(place / "state"), str(place / "log"), dying)
    child = _CONTEXT.Process(target=_make, args=told)
    child.start()
    while child.is_alive() and not (now and now()):
        child.join(0.01)
    child.join(later if now else None)
    if child.is_alive():
        assert child.pid is not None
        os.kill(child.pid, signal_number)
        child.join()
        return False
    if dying:
        assert child.exitcode == -signal.SIGKILL
        return False
    assert child.exitcode == 0, (place / "log").read_text()
    return True


def half_way(place: Path, lines: int) -> Callable[[], bool]:
    """Whether the journal of the job in `place` holds so many lines about stages."""
    return lambda: len(stage_events(place / "out")) >= lines


def stage_events(out: Path) -> list[dict[str, Any]]:
    """The journal's lines about stages that began, ended or were found."""
    events = Journal(work_folder(out)).events()
    return [event for event in events if event["event"] in ("began", "ended", "found")]


def kill_once(
    job: Job, place: Path, lines: int, seed: int, signal_number: int = signal.SIGKILL
) -> bool:
    """Run a job, killed at a random moment; whether the kill came before it was done.

    `lines` is how many lines about stages an uninterrupted run writes.
    """
    generator = random.Random(seed)
    at = len(stage_events(place / "out")) + generator.randint(1, max(1, lines - 10))
    return not run(job, place, half_way(place, at), generator.uniform(0, 0.3), signal_number)


def fingerprint(out: Path) -> dict[str, Any]:
    """What two runs of the same job must share: shapes, weights, answers, scores, the verdict."""
    card = read_card(out)
    files = {
        path.name: sha256_of(path)
        for path in sorted(out.iterdir())
        if path.suffix in (".safetensors", ".gguf")
    }
    return {
        "shape": card.shape,
        "bits": card.bits,
        "files": files,
        "answers": [answer.model_dump() for answer in card.answers],
        "scores": read_scores(out).model_dump(),
        "word": card.verdict.word,
        "rows": [(row.name, row.dev.mean) for row in card.rows],
        "recovery": [each.model_dump() for each in card.recovery],
    }


def stages_done_twice(out: Path) -> list[str]:
    """Names of stages that were worked out to the end more than once; trainings grow and may."""
    ended = Counter(
        event["name"]
        for event in Journal(work_folder(out)).events()
        if event["event"] == "ended" and event["kind"] not in ("distil", "scratch")
    )
    return [name for name, times in ended.items() if times > 1]


def write_task(path: Path, items: tuple[int, int, int] = (48, 24, 24)) -> Path:
    """A task of questions without answers: the teacher gives them."""
    lines = [
        {"prompt": f"{split} pump {i}", "split": split, "group": f"{split}{i // 2}"}
        for split, count in zip(("train", "dev", "test"), items, strict=True)
        for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path
