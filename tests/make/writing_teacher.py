"""A tiny teacher that knows one task, prompts and all, taught in a second; and runs of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["flyweight.make.writing", "transformers", "xllamacpp"])

MACHINES = ("pump", "valve", "motor")
FAULTS = {"is leaking oil": "oil", "is hot": "hot", "is open": "open", "is near the valve": "near"}
SYSTEM = "name the fault"


def task_rows(chat: bool = False, answers: bool = True) -> list[dict[str, Any]]:
    """A few items a split; dev and test are of numbers that train has not."""
    rows = []
    for number in range(1, 31):
        split = "train" if number <= 16 else "dev" if number <= 23 else "test"
        fault = list(FAULTS)[number % len(FAULTS)]
        text = f"the {MACHINES[number % 3]} {number} {fault}, please send somebody"
        row: dict[str, Any] = {"prompt": text}
        if chat:
            turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
            row = {"messages": turns}
        if answers or split != "train":
            row["answer"] = FAULTS[fault]
        rows.append(row | {"split": split, "slice": ["x"]})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def teach(folder: Path) -> Path:
    """Teach the tiny Llama in `folder` to ask and answer such things, plain or as a chat."""
    from flyweight.checkpoint import open_checkpoint, round_weights, save_checkpoint
    from flyweight.distill.losses import cross_entropy
    from flyweight.distill.trainer import Schedule, train
    from flyweight.tasks.encode import encode

    source = open_checkpoint(folder)
    model, tokenizer = source.model(), source.tokenizer()
    rows = []
    for number in range(1, 61):
        for fault, answer in FAULTS.items():
            text = f"the {MACHINES[number % 3]} {number} {fault}, please send somebody"
            system = [{"role": "system", "content": SYSTEM}] if number % 2 else []
            example = encode(tokenizer, [*system, {"role": "user", "content": text}], answer)
            weights = np.ones(len(example), dtype=np.float32)
            weights[: example.prompt_length] = 0.3
            rows.append({"input_ids": example.ids, "weights": weights})
    train(model, rows, cross_entropy, Schedule(150, 16, 5e-3), "Teaching")
    round_weights(model)
    save_checkpoint(model, tokenizer, folder)
    return folder


def _write(job: dict[str, Any], log: str) -> None:
    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import flyweight

    flyweight.write_data(job.pop("teacher"), job.pop("out"), **job)


def run_until(job: dict[str, Any], stage: str, log: Path) -> bool:
    """Run `write_data` in a process of its own, killed once a stage of this kind is there.

    True: it came to its end before.
    """
    work = Path(f"{job['out']}.work")
    child = _CONTEXT.Process(target=_write, args=(job, str(log)))
    child.start()
    while child.is_alive() and not list(work.glob(f"{stage}*")):
        child.join(0.005)
    if not child.is_alive():
        assert child.exitcode == 0, log.read_text()
        return True
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    return False
