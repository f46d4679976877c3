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
        {"loss": "kl"},
        {"beta": 0.5},
        {"temperature": 0.0},
        {"match_hidden": -1.0},
        {"on_policy": 2.0},
        {"prompt_weight": -1.0},
        {"prompt_weight": float("nan")},
        {"tool_weight": float("inf")},
        {"tool_weight": 2.0},
        {"kl": 1.1},
        {"seed": -1},
        {"top_k": 0},
        {"cache_budget": "much"},
        {"cache_budget": "1GB", "loss": "cross-entropy"},
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
    named = "--" + next(iter(options)).replace("_", "-")
    with pytest.raises(OptionError, match=named):
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


def test_too_few_embeddings_are_refused(
    tiny_llama: Path, make_llama: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    other = make_llama(tmp_path / "other", vocab_size=290)
    with pytest.raises(TeacherError, match=r"it has 290 embeddings for 300 tokens of"):
        flyweight.distill(str(tiny_llama), str(other), tmp_path / "out", data=data, steps=1)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "jsd", "beta": 0.3},
        {"loss": "reverse-kl", "on_policy": 0.3},
        {"temperature": 2.0, "match_hidden": 0.1},
    ],
    ids=["jsd", "on-policy", "temperature and matching"],
)
def test_every_way_brings_the_student_nearer(
    tiny_llama: Path, student: Path, data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    out, before = tmp_path / "out", mean_kl(tiny_llama, student, data)
    options |= {"data": data, "steps": 30, "batch_size": 8, "learning_rate": 5e-3}
    flyweight.distill(str(tiny_llama), str(student), out, kl=1.0, **options)
    assert mean_kl(tiny_llama, out, data) < 0.8 * before


def test_without_the_teacher_the_answers_are_learned(
    tiny_llama: Path, student: Path, data: Path, tmp_path: Path
) -> None:
    """And weights are of the very tokens: where only tool calls count, only those are."""
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    for line in lines:
        line["answer"] += " <tool_call>stop</tool_call>"
    calling = tmp_path / "calling.jsonl"
    calling.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = {}
    for name, weight in (("all", 1.0), ("calls", 50.0)):
        found[name] = flyweight.distill(
            str(tiny_llama), str(student), tmp_path / name, data=calling, steps=12, batch_size=8,
            learning_rate=5e-3, loss="cross-entropy", prompt_weight=0.0, tool_weight=weight,
        )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    nats: dict[str, list[float]] = {}
    for name, folder in {"before": student, **found}.items():
        model = AutoModelForCausalLM.from_pretrained(folder).float()
        sums = [0.0, 0.0]  # of the plain tokens, of the calls'
        for line in lines:
            plain = line["prompt"] + line["answer"].split(" <tool")[0]
            ends = [len(tokenizer(text)["input_ids"]) for text in (line["prompt"], plain)]
            ids = torch.tensor([tokenizer(line["prompt"] + line["answer"])["input_ids"]])
            with torch.no_grad():
                each = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
            sums[0] += each[ends[0] - 1 : ends[1] - 1].sum().item()
            sums[1] += each[ends[1] :].sum().item()
        nats[name] = sums
    assert sum(nats["all"]) < 0.9 * sum(nats["before"])
    assert nats["calls"][1] < nats["all"][1]
    assert nats["calls"][0] > nats["all"][0]


def test_a_student_with_a_cut_vocabulary_learns_from_its_teacher(
    tiny_llama: Path, data: Path, tmp_path: Path
) -> None:
    """In its own tokens, whose folder stays that of a smaller tokenizer."""
    cut = flyweight.prune(str(tiny_llama), tmp_path / "cut", task=data, layers=1, used_tokens=True)
    out = tmp_path / "out"
    options: dict[str, Any] = {"steps": 40, "batch_size": 8, "learning_rate": 5e-3}
    flyweight.distill(str(tiny_llama), str(cut), out, data=data, kl=1.0, **options)
    assert (out / "tokenizer.json").read_bytes() == (cut / "tokenizer.json").read_bytes()
    before, after = (kept_kl(tiny_llama, each, data) for each in (cut, out))
    assert after < 0.7 * before


@torch.inference_mode()
def kept_kl(teacher: Path, student: Path, data: Path) -> float:
    """KL over the train answers between the teacher, renormalised over kept tokens, and student."""
    tokenizers = [AutoTokenizer.from_pretrained(each) for each in (teacher, student)]
    big, small = (AutoModelForCausalLM.from_pretrained(each).float() for each in (teacher, student))
    old = tokenizers[0].get_vocab()
    kept = sorted((new, old[token]) for token, new in tokenizers[1].get_vocab().items())
    rows = torch.tensor([row for _, row in kept])
    total = count = 0.0
    for line in data.read_text().splitlines():
        record = json.loads(line)
        if record["split"] == "train":
            chat = [{"role": "user", "content": record["prompt"]},
                    {"role": "assistant", "content": record["answer"]}]  # fmt: skip
            text = tokenizers[1].apply_chat_template(chat, tokenize=False)
            ids = torch.tensor([tokenizers[1](text, add_special_tokens=False)["input_ids"]])
            log_q = small(ids).logits[0, :-1].log_softmax(-1)
            log_p = big(rows[ids]).logits[0, :-1, rows].log_softmax(-1)
            total += F.kl_div(log_q, log_p, reduction="sum", log_target=True).item()
            count += len(log_q)
    return total / count


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
