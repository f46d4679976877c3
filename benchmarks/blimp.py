"""Does a smaller model, or one of fewer bits, still tell good English sentences from bad ones?

BLiMP (Warstadt et al. 2020, arXiv:1912.00582): 67 kinds of sentence pairs of which one is
grammatical; a model is right where it finds that one likelier. babyllama-tok105 and what was made
of it, scored through lm-eval: by its own Hugging Face back end, by ours in torch with the same
weights, and by llama.cpp at each width. Interval: 95 %, over the kinds.

    python benchmarks/blimp.py                          # the teacher, 20 pairs of each kind
    python benchmarks/blimp.py --student out/baby --pairs 100
"""

from __future__ import annotations

import argparse
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import flyweight
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.lm_eval_model import EngineModel
from flyweight.tasks.statistics import mean_interval
from llama2c import SHARED, convert_known

CONTEXT = 256
NEAR_TIE = 0.05  # nats


def write_pairs(path: Path, pairs: int) -> Path:
    """The first `pairs` of each kind, one JSON object a line."""
    archive = zipfile.ZipFile(SHARED / "data" / "text" / "BLiMP.zip")
    names = sorted(name for name in archive.namelist() if name.endswith(".jsonl"))
    names = [name for name in names if "__MACOSX" not in name]
    with path.open("w", encoding="utf-8") as file:
        for name in names:
            for line in archive.read(name).decode().splitlines()[:pairs]:
                told = json.loads(line)
                kept = {key: told[key] for key in ("sentence_good", "sentence_bad", "UID")}
                file.write(json.dumps(kept) + "\n")
    return path


def task_of(path: Path) -> dict[str, Any]:
    """lm-eval's BLiMP task, over a file instead of the hub."""
    return {
        "task": "blimp_here",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"train": str(path)}},
        "output_type": "multiple_choice",
        "validation_split": "train",
        "doc_to_text": "",
        "doc_to_target": 0,
        "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


@dataclass(frozen=True)
class Arm:
    """What one model said: bytes of its weights, and for each pair how much it prefers the good."""

    name: str
    bytes: int
    kinds: list[str]
    nats: np.ndarray  # float [n]: log-probability of the good sentence over that of the bad

    @property
    def right(self) -> np.ndarray:
        return self.nats > 0


def ask(name: str, size: int, model: Any, task: dict[str, Any]) -> Arm:
    """All pairs through lm-eval."""
    import lm_eval

    found = lm_eval.simple_evaluate(
        model=model, tasks=[task], log_samples=True, bootstrap_iters=0, verbosity="ERROR"
    )
    samples = sorted(found["samples"]["blimp_here"], key=lambda sample: sample["doc_id"])
    nats = [sample["filtered_resps"][0][0] - sample["filtered_resps"][1][0] for sample in samples]
    return Arm(name, size, [sample["doc"]["UID"] for sample in samples], np.array(nats))


def arms_of(name: str, folder: Path, task: dict[str, Any], own: bool) -> list[Arm]:
    """A folder in torch (and lm-eval's own back end, if `own`) and in llama.cpp at each width."""
    if not (folder / GGUF_NAMES[4]).exists() or not (folder / GGUF_NAMES[16]).exists():
        flyweight.pack(folder)
    weights = (folder / "model.safetensors").stat().st_size
    found = []
    if own:
        from lm_eval.models.huggingface import HFLM

        theirs = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=16)
        found.append(ask(f"{name}, lm-eval's own, fp32", weights, theirs, task))
    with EngineModel.opened(folder, engine="torch") as model:
        found.append(ask(f"{name}, torch, fp32", weights, model, task))
    for bits, file in GGUF_NAMES.items():
        if (folder / file).exists():
            with EngineModel.opened(folder, bits=bits) as model:
                size = (folder / file).stat().st_size
                found.append(ask(f"{name}, llama.cpp, {bits} bits", size, model, task))
    return found


def show(arms: list[Arm]) -> None:
    """One table, and how the choices of each differ from those of the first arm of its model."""
    table = Table(title=f"{len(arms[0].nats):,} pairs of {len(set(arms[0].kinds))} kinds")
    for heading in ("", "bytes", "right", "95 %", "other choices", "of which near ties"):
        table.add_column(heading, justify="right" if heading else "left")
    base = arms[0]
    for arm in arms:
        if arm.name.partition(",")[0] != base.name.partition(",")[0]:
            base = arm
        mean = mean_interval(arm.right.astype(float), arm.kinds)
        other = arm.right != base.right
        ties = other & (np.abs(base.nats) < NEAR_TIE)
        span = f"{mean.low:.1%} to {mean.high:.1%}"
        differing = ("", "") if arm is base else (str(other.sum()), str(ties.sum()))
        table.add_row(arm.name, f"{arm.bytes:,}", f"{mean.mean:.1%}", span, *differing)
    Console(highlight=False, width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--student", type=Path, nargs="*", default=[], help="folders made of it")
    parser.add_argument("--pairs", type=int, default=20, help="of each kind")
    told = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with TemporaryDirectory() as scratch:
        task = task_of(write_pairs(Path(scratch) / "pairs.jsonl", told.pairs))
        teacher = convert_known("babyllama", Path(scratch) / "babyllama")
        arms = arms_of("teacher", teacher, task, own=True)
        for folder in told.student:
            arms += arms_of(folder.name, folder, task, own=False)
    show(arms)


if __name__ == "__main__":
    main()
