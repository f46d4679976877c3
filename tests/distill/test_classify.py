"""The verb on encoders: a student comes near its teacher, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flyweight
import zoo
from flyweight.checkpoint import open_checkpoint
from flyweight.distill.labels import ask_labels, label_rows
from flyweight.errors import OptionError, TaskError, TeacherError
from flyweight.tasks.labels import label_items
from flyweight.tasks.read import read_task
from tiny import TEXTS, tiny_tokenizer

WORDS = " ".join(TEXTS).split()


def save(folder: Path, **changes: Any) -> Path:
    """A tiny BERT with a wide head, so that it has something to say."""
    model = zoo.build("bert", vocab_size=304, **changes)
    with torch.no_grad():
        model.classifier.weight.mul_(8)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def task(teacher: Path, tmp_path: Path) -> Path:
    """Texts with the labels that the teacher gives them."""
    generator = np.random.default_rng(0)
    file = tmp_path / "task.jsonl"
    texts = [" ".join(generator.choice(WORDS, 3 + i % 5)) + f" {i}" for i in range(160)]
    splits = ["train"] * 100 + ["dev"] * 30 + ["test"] * 30
    names = list(open_checkpoint(teacher).config.label2id)
    lines = [
        {"prompt": text, "answer": names[i % len(names)], "split": split}
        for i, (text, split) in enumerate(zip(texts, splits, strict=True))
    ]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return file


def apart(teacher: Path, student: Path, task: Path) -> float:
    """Mean KL(teacher || student) on dev, each model in its own tokens."""
    said = []
    for folder in (teacher, student):
        source = open_checkpoint(folder)
        items = read_task(task).dev
        examples = label_items(source.tokenizer(), items, "t", 512, source.config.label2id)
        said.append(ask_labels(source.model(), label_rows(examples)))
    return float((np.exp(said[0]) * (said[0] - said[1])).sum(1).mean())


def test_cut_by_a_share_and_distilled_it_comes_near(
    teacher: Path, task: Path, tmp_path: Path
) -> None:
    cut = flyweight.prune(str(teacher), tmp_path / "cut", task=task, keep=0.6, mend=False)
    shapes = [open_checkpoint(folder) for folder in (teacher, cut)]
    assert shapes[1].parameters == pytest.approx(0.6 * shapes[0].parameters, rel=0.15)
    out = flyweight.distill(
        str(teacher), str(cut), tmp_path / "out", data=task, steps=60, batch_size=16, kl=1.0
    )
    assert apart(teacher, out, task) < apart(teacher, cut, task) / 2


def test_a_student_of_fewer_tokens_reads_in_its_own(
    teacher: Path, task: Path, tmp_path: Path
) -> None:
    cut = flyweight.prune(
        str(teacher), tmp_path / "cut", task=task, used_tokens=True, layers=1, mend=False
    )
    assert open_checkpoint(cut).shape.vocabulary < 304
    out = flyweight.distill(
        str(teacher), str(cut), tmp_path / "out", data=task, steps=40, batch_size=16, kl=1.0
    )
    assert apart(teacher, out, task) < apart(teacher, cut, task)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"loss": "reverse-kl"}, "--loss is forward-kl or cross-entropy"),
        ({"temperature": 2.0}, "without --temperature, --match-hidden and --on-policy"),
        ({"match_hidden": 1.0}, "without --temperature, --match-hidden and --on-policy"),
        ({"cache": Path("somewhere")}, "--cache is for models that write"),
        ({"prompt_weight": 1.0}, "--prompt-weight is for models that write"),
        ({"top_k": 5}, "--top-k is for models that write"),
        ({"corpus": ["texts.txt"]}, "--corpus is for models that write"),
    ],
)
def test_what_only_models_that_write_have_is_refused(
    teacher: Path, task: Path, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(OptionError, match=said):
        flyweight.distill(str(teacher), str(teacher), out, data=task, **given)
    assert not out.exists()


def test_labels_that_do_not_fit_are_refused(teacher: Path, task: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "other", id2label={i: f"kind {i}" for i in range(5)})
    with pytest.raises(TeacherError, match="its labels are not those of"):
        flyweight.distill(str(teacher), str(other), tmp_path / "out", data=task)
    task.write_text(task.read_text().replace('"LABEL_0"', '"leak"'))
    with pytest.raises(TaskError, match="the answer 'leak' is none of the teacher's labels"):
        flyweight.distill(str(teacher), str(teacher), tmp_path / "out", data=task)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"problem_type": "multi_label_classification"}, "chooses no label of several"),
        ({"num_labels": 1, "id2label": {0: "a"}}, "chooses no label of several"),
        ({"id2label": dict.fromkeys(range(5), "same")}, "do not number the 5 labels alike"),
    ],
)
def test_heads_that_choose_no_label_are_refused(
    teacher: Path, task: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    other = save(tmp_path / "other", **changes)
    with pytest.raises(TeacherError, match=said):
        flyweight.distill(str(other), str(teacher), tmp_path / "out", data=task)


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(
    teacher: Path, task: Path, tmp_path: Path
) -> None:
    other = save(tmp_path / "other")
    small = zoo.build("bert", vocab_size=200)
    small.save_pretrained(other)
    with pytest.raises(TeacherError, match="and the model has 200 embeddings"):
        flyweight.distill(str(teacher), str(other), tmp_path / "out", data=task)


def test_near_copies_of_test_items_are_told(
    teacher: Path, task: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in task.read_text().splitlines()]
    lines[-1] = lines[0] | {"prompt": lines[0]["prompt"] + " .", "split": "test"}
    task.write_text("\n".join(map(json.dumps, lines)) + "\n")
    flyweight.distill(str(teacher), str(teacher), tmp_path / "out", data=task, steps=1)
    assert "nearly test items" in " ".join(capfd.readouterr().err.split())
