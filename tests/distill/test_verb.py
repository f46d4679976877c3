"""The verb `distill` from folder to folder on a tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

import flyweight
from flyweight.errors import FolderError, OptionError, TaskError, TeacherError

WORDS = ["pump", "valve", "motor", "pressure", "fault", "oil", "hot", "open"]


def task_file(path: Path, answered: bool = True) -> Path:
    """Sixteen train items and a few of the other splits."""
    lines = []
    for number in range(24):
        word, other = WORDS[number % 8], WORDS[(number * 3 + 1) % 8]
        record = {
            "prompt": f"the {word} {number}",
            "answer": f"{other} is {word}",
            "split": ("train", "train", "train", "train", "dev", "test")[number % 6],
        }
        if not answered and number == 8:
            del record["answer"]
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return task_file(tmp_path_factory.mktemp("data") / "task.jsonl")


@pytest.fixture(scope="module")
def student(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(
        tmp_path_factory.mktemp("student") / "s", num_hidden_layers=1, initializer_range=0.05
    )


@torch.inference_mode()
def mean_kl(teacher: Path, student: Path, data: Path) -> float:
    """KL over the train answers, from the folders alone, through plain transformers."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    models = [AutoModelForCausalLM.from_pretrained(each).float() for each in (teacher, student)]
    total = count = 0.0
    for line in data.read_text().splitlines():
        record = json.loads(line)
        if record["split"] != "train":
            continue
        chat = [{"role": "user", "content": record["prompt"]}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        text = prompt + record["answer"] + tokenizer.eos_token
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) - 1
        log_p, log_q = (each(ids).logits[0, start:-1].log_softmax(-1) for each in models)
        total += F.kl_div(log_q, log_p, reduction="sum", log_target=True).item()
        count += len(log_p)
    return total / count


def test_a_student_comes_nearer_to_its_teacher(
    tiny_llama: Path, student: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {"data": data, "steps": 40, "batch_size": 8, "learning_rate": 5e-3}
    before = mean_kl(tiny_llama, student, data)
    assert flyweight.distill(str(tiny_llama), str(student), out, kl=1.0, **options) == out
    assert mean_kl(tiny_llama, out, data) < 0.7 * before
    assert (out / "tokenizer.json").read_bytes() == (tiny_llama / "tokenizer.json").read_bytes()
    assert list(tmp_path.iterdir()) == [out]
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.dtype == torch.bfloat16
    assert loaded.config.num_hidden_layers == 1


@pytest.mark.parametrize(
    "options",
    [
        {"kl": 1.1},
        {"kl": -0.1},
        {"kl": float("nan")},
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
    ],
)
def test_options_out_of_range_are_refused(
    tiny_llama: Path, student: Path, data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(OptionError, match="--" + next(iter(options)).replace("_", "-")):
        flyweight.distill(str(tiny_llama), str(student), tmp_path / "out", data=data, **options)
    assert list(tmp_path.iterdir()) == []


def renamed_token(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<|system|>", "<|sistem|>"))


def without_merges(folder: Path) -> None:
    """The same vocabulary, but words fall into other pieces."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize("change", [renamed_token, without_merges])
def test_a_differing_tokenizer_is_refused(
    tiny_llama: Path, student: Path, data: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    other = Path(shutil.copytree(student, tmp_path / "other"))
    change(other)
    with pytest.raises(TeacherError, match=r"other: its tokenizer differs from that of"):
        flyweight.distill(str(tiny_llama), str(other), tmp_path / "out", data=data, steps=1)
    assert not (tmp_path / "out").exists()


def test_another_number_of_embeddings_is_refused(
    tiny_llama: Path, make_llama: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    other = make_llama(tmp_path / "other", vocab_size=300)
    with pytest.raises(TeacherError, match=r"it has 300 embeddings, .* has 304"):
        flyweight.distill(str(tiny_llama), str(other), tmp_path / "out", data=data, steps=1)


def test_a_missing_answer_is_named(tiny_llama: Path, student: Path, tmp_path: Path) -> None:
    data = task_file(tmp_path / "task.jsonl", answered=False)
    with pytest.raises(TaskError, match=r"task\.jsonl, line 9: no answer"):
        flyweight.distill(str(tiny_llama), str(student), tmp_path / "out", data=data)


def test_an_item_longer_than_the_context_is_named(
    tiny_llama: Path, student: Path, tmp_path: Path
) -> None:
    data = task_file(tmp_path / "task.jsonl")
    long = {"prompt": "valve " * 600, "answer": "oil", "split": "train"}
    data.write_text(data.read_text() + json.dumps(long) + "\n")
    with pytest.raises(TaskError, match=r"task, line 25: \d+ tokens do not fit .* context of 512"):
        flyweight.distill(str(tiny_llama), str(student), tmp_path / "out", data=data)


def test_somebody_elses_folder_is_refused_before_any_work(
    tiny_llama: Path, student: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis").write_text("years of work")
    with pytest.raises(FolderError, match="did not write"):
        flyweight.distill(str(tiny_llama), str(student), tmp_path, data=data)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]
