"""A measurement in a process of its own, which can be killed; for test_streaming.py."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from flyweight.anatomy import family_of
from flyweight.shrink import batches, calibrate, sums
from zoo import build

_CONTEXT = multiprocessing.get_context("fork")  # with the imports behind it


def corpus(prompts: int, pause: float = 0.0) -> Iterator[list[int]]:
    """Prompts, one at a time, each after a pause."""
    for i in range(prompts):
        time.sleep(pause)
        yield [3 + (7 * i + 5 * j * j) % 70 for j in range(2 + 3 * i % 11)]


def _measure(folder: str, prompts: int, pause: float) -> None:
    torch.set_num_threads(1)  # others did not come along
    sums.SAVE_EVERY, batches.WINDOW, calibrate.WINDOW = 0.0, 2, 2
    model = build("llama", num_hidden_layers=2)
    place = Path(folder)
    found = calibrate.measure_importance(
        model, family_of(model.config), corpus(prompts, pause), 4, taylor=True, keep=place / "sums"
    )
    found.save(place / "scores")


def measure(folder: Path, prompts: int, pause: float = 0.0, kill_after: int | None = None) -> bool:
    """Measure into `folder`; True: it ended by itself. Killed once so many batches are saved."""
    child = _CONTEXT.Process(target=_measure, args=(str(folder), prompts, pause))
    child.start()
    while child.is_alive() and (kill_after is None or saved(folder) < kill_after):
        child.join(0.003)
    if child.is_alive():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        return False
    assert child.exitcode == 0
    return True


def saved(folder: Path) -> int:
    """The furthest batch that a save of any kind speaks of."""
    names = [path.name for path in folder.glob("sums/after-*")]
    return max([int(name.removeprefix("after-")) for name in names], default=0)
