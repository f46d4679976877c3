"""How small a model names the intents of real customers' questions as well as its teacher does?

Banking77 (Casanueva et al. 2020, arXiv:2003.04807): 13,083 questions to a bank, 77 intents; here
the answer is the intent's name, written out. First the embedded teacher, which knows a plant and no
bank, is fine-tuned on train by the one trainer; then `make` shrinks it on the same items.

    python benchmarks/banking77.py   # hours on one core (untried)
    python benchmarks/banking77.py --intents 10 --teach 100 --steps 60 --dev 120 --test 300  # 5 min
    python benchmarks/banking77.py --intents 3 --teach 4 --steps 4 --dev 20 --test 20   # a minute
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console

import flyweight
from flyweight.card import Card
from flyweight.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from flyweight.distill.losses import cross_entropy
from flyweight.distill.teacher import answer_rows
from flyweight.distill.trainer import Schedule, train
from flyweight.runtime.forced import greedy_matches
from flyweight.tasks.encode import encode_items
from flyweight.tasks.items import Item
from flyweight.tasks.read import read_task
from flyweight.tasks.statistics import mean_interval

SHARED = Path(os.environ.get("FLYWEIGHT_SHARED", Path(__file__).parents[2] / "shared"))
TEACHER = Path(__file__).parents[1] / "src" / "flyweight" / "demo" / "teacher"
DEV = 500  # items of train.csv that are held out
PROMPT_WEIGHT = 0.05  # of a question's tokens while the teacher learns: a little of the language


def read(name: str, intents: int) -> list[tuple[str, str]]:
    """(question, intent) of the first `intents` intents by name, without repeated questions."""
    with (SHARED / "data" / "banking77" / name).open(encoding="utf-8") as file:
        rows = [(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]
    kept = set(sorted({intent for _, intent in rows})[:intents])
    return list({text: (text, intent) for text, intent in rows if intent in kept}.values())


def spread(count: int, wanted: int) -> set[int]:
    """At most `wanted` places among `count`, evenly spread: the files are sorted by intent."""
    wanted = min(count, wanted)
    return {place * count // wanted for place in range(wanted)}


def write_task(path: Path, intents: int, dev: int, test: int) -> Path:
    """The task file: dev is taken out of train.csv, test is test.csv or an even part of it."""
    known = read("train.csv", intents)
    held_out = spread(len(known), dev)
    asked = {text for text, _ in known}
    unseen = [row for row in read("test.csv", intents) if row[0] not in asked]
    parts = {
        "train": [row for place, row in enumerate(known) if place not in held_out],
        "dev": [known[place] for place in sorted(held_out)],
        "test": [unseen[place] for place in sorted(spread(len(unseen), test))],
    }
    with path.open("w", encoding="utf-8") as file:
        for split, rows in parts.items():
            for text, intent in rows:
                item = {"prompt": text, "answer": intent, "split": split}
                file.write(json.dumps(item) + "\n")
    return path


def teach(start: Path, task_file: Path, out: Path, schedule: Schedule) -> Path:
    """Fine-tune the model in `start` on the task's train items, into a Hugging Face folder."""
    checkpoint, task = open_checkpoint(start), read_task(task_file)
    model, tokenizer = checkpoint.model(), checkpoint.tokenizer()
    examples = encode_items(tokenizer, task.train, task.name, checkpoint.context)
    rows = answer_rows(examples, PROMPT_WEIGHT)
    train(model, rows, cross_entropy, schedule, "Teaching the bank")
    save_checkpoint(model, tokenizer, out)
    return out


def say_accuracy(name: str, folder: Path, items: Sequence[Item]) -> None:
    """Print the share of items that greedy decoding would answer exactly, with its interval."""
    checkpoint: Checkpoint = open_checkpoint(folder)
    model, tokenizer = checkpoint.model(), checkpoint.tokenizer()
    examples = encode_items(tokenizer, items, name, checkpoint.context)
    right = greedy_matches(model, [(each.prompt, each.answer) for each in examples])
    say_scores(name, right.astype(float), [item.group for item in items])


def say_scores(name: str, scores: np.ndarray, groups: Sequence[Any]) -> None:
    found = mean_interval(scores, groups)
    Console(highlight=False).print(
        f"{name}: {found.mean:.1%} exact on test ({found.low:.1%} to {found.high:.1%}, "
        f"n = {found.n:,})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--start", type=Path, default=TEACHER, help="what is taught the bank")
    parser.add_argument("--taught", type=Path, help="a taught teacher, to be used instead")
    parser.add_argument("--keep", type=Path, help="where to leave the taught teacher")
    parser.add_argument("--out", type=Path, help="where to leave the student's model folder")
    parser.add_argument("--intents", type=int, default=77, help="the first so many by name")
    parser.add_argument("--teach", type=int, default=2_000, help="steps of fine-tuning")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of fine-tuning")
    parser.add_argument("--steps", type=int, help="of distillation; make's own choice if not given")
    parser.add_argument("--dev", type=int, default=DEV)
    parser.add_argument("--test", type=int, default=3_080)
    parser.add_argument("--bar", type=float, default=0.95)
    parser.add_argument("--effort", default="quick")
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        task = write_task(folder / "banking77.jsonl", options.intents, options.dev, options.test)
        teacher = options.taught
        if teacher is None:
            schedule = Schedule(steps=options.teach, learning_rate=options.rate)
            teacher = teach(options.start, task, options.keep or folder / "teacher", schedule)
        say_accuracy("teacher", teacher, read_task(task).test)
        out = flyweight.make(
            str(teacher),
            task=task,
            out=options.out or folder / "student",
            bar=options.bar,
            effort=options.effort,
            steps=options.steps,
        )
        card = Card.model_validate_json((out / "card.json").read_text(encoding="utf-8"))
    for name, scores in (("teacher", card.scores.teacher), ("student", card.scores.student)):
        test = scores.test
        Console(highlight=False).print(
            f"{name} in llama.cpp: {test.mean:.1%} exact on test ({test.low:.1%} to "
            f"{test.high:.1%}, n = {test.n:,})"
        )


if __name__ == "__main__":
    main()
