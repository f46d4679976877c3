"""`make` on an encoder that gives texts labels, against ONNX Runtime and transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flyweight
import zoo
from flyweight.checkpoint import open_checkpoint, round_weights
from flyweight.errors import MissingExtra, OptionError
from flyweight.folder import ONNX_NAMES, read_card, read_scores
from flyweight.make.budget import LEAST_BYTES
from flyweight.make.report import run_commands
from tiny import TEXTS, tiny_tokenizer

WORDS = " ".join(TEXTS).split()
SPLITS = ("train",) * 320 + ("dev",) * 120 + ("test",) * 120


def texts() -> list[str]:
    generator = np.random.default_rng(0)
    found: dict[str, None] = {}
    while len(found) < len(SPLITS):
        found[" ".join(generator.choice(WORDS, generator.integers(3, 9)))] = None
    return list(found)


def logits_of(folder: Path, asked: list[str]) -> torch.Tensor:
    """What plain transformers says, float32 [n, C]."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in asked])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder with an even choice of labels, and a task with its own answers."""
    folder = tmp_path_factory.mktemp("classifier")
    model = zoo.build("bert", vocab_size=304)
    model.save_pretrained(folder / "teacher")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder / "teacher")
    asked = texts()
    said = logits_of(folder / "teacher", asked)
    with torch.no_grad():
        model.classifier.bias -= said.mean(0) * 8
        model.classifier.weight.mul_(8)
    round_weights(model)  # as its files will be
    model.save_pretrained(folder / "teacher")
    said = logits_of(folder / "teacher", asked).argmax(1).tolist()
    names = model.config.id2label
    lines = [
        {"prompt": text, "answer": names[label], "split": split, "slice": f"{len(text) % 2}"}
        for text, label, split in zip(asked, said, SPLITS, strict=True)
    ]
    (folder / "task.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


@pytest.fixture(scope="module")
def made(work: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYWEIGHT_STATE", str(work / "state"))
        return flyweight.make(
            str(work / "teacher"),
            task=work / "task.jsonl",
            out=work / "out",
            score="accuracy",
            bar=0.5,
            effort="quick",
            steps=60,
        )


def test_the_folder_holds_proven_files_and_says_so(made: Path) -> None:
    card = read_card(made)
    assert card.formats == ["safetensors", "onnx-32", "onnx-8"]
    assert {*ONNX_NAMES.values(), "model.safetensors", "report.html"} <= {
        path.name for path in made.iterdir()
    }
    assert card.parity.equal == card.parity.prompts > 0
    assert card.parity.furthest is not None
    assert card.parity.furthest < 1e-3
    assert card.versions.keys() >= {"onnx", "onnxruntime"}
    assert open_checkpoint(made).parameters == card.parameters < card.teacher.parameters


def test_both_engines_were_measured(made: Path) -> None:
    rows = read_card(made).rows
    students = {row.bits: row for row in rows if row.role == "candidate"}
    assert {bits: row.engine for bits, row in students.items()} == {
        32: "ONNX Runtime", 16: "torch", 8: "ONNX Runtime",
    }  # fmt: skip
    assert all(row.texts_per_second and row.tokens_per_second is None for row in rows)
    assert students[32].dev.mean == students[16].dev.mean, "the same weights"
    assert students[8].bytes >= LEAST_BYTES[8] * students[8].parameters
    assert {row.role for row in rows} == {
        "teacher", "quantised teacher", "from scratch", "candidate",
    }  # fmt: skip


def test_scores_are_what_transformers_gets(work: Path, made: Path) -> None:
    """Of the teacher and, at 16 or 32 bits, of the student as well."""
    items = [json.loads(line) for line in (work / "task.jsonl").read_text().splitlines()]
    test = [item for item in items if item["split"] == "test"]
    labels = open_checkpoint(work / "teacher").labels
    wanted = torch.tensor([labels[item["answer"]] for item in test])
    card, scores = read_card(made), read_scores(made)
    asked = [item["prompt"] for item in test]
    teacher = logits_of(work / "teacher", asked).argmax(1) == wanted
    assert scores.teacher == teacher.float().tolist()
    if card.bits > 8:
        student = logits_of(made, asked).argmax(1) == wanted
        assert scores.student == student.float().tolist()
    assert {part.name for part in card.slices} == {"0", "1"}


def test_the_commands_of_the_report_run(made: Path) -> None:
    commands = run_commands(read_card(made))
    assert "In Python, with plain transformers" in commands
    for command in commands.values():
        done = subprocess.run(
            [sys.executable, "-c", command],
            cwd=made.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert any(label in done.stdout for label in open_checkpoint(made).labels)


def test_eval_measures_any_of_its_files(work: Path, made: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYWEIGHT_STATE", str(work / "state"))
        found = {
            bits: flyweight.eval(
                str(made), task=work / "task.jsonl", score="accuracy", split="dev", bits=bits
            )
            for bits in (32, 16, 8)
        }
    rows = {row.bits: row for row in read_card(made).rows if row.role == "candidate"}
    assert {bits: each["mean"] for bits, each in found.items()} == {
        bits: row.dev.mean for bits, row in rows.items()
    }
    with pytest.raises(OptionError, match=r"--bits is 4: choose 32, 16 or 8"):
        flyweight.eval(str(made), task=work / "task.jsonl", bits=4)


def test_what_an_encoder_cannot_do_is_refused(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OptionError, match="gives texts labels"):
        flyweight.make(str(work / "teacher"), task=work / "task.jsonl", out=out, score="likelihood")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(MissingExtra, match=r"flyweight\[onnx\]"):
            flyweight.make(str(work / "teacher"), task=work / "task.jsonl", out=out)
    assert not list(tmp_path.iterdir())
