"""The verb `distill` on corpora: beside a task's items or alone, recorded and live."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import flyweight
from flyweight import cli
from flyweight.errors import FlyweightError, OptionError, TaskError

STORIES = [f"the {a} of the {b} is hot, and the motor is open" for a in ("pump", "valve", "oil")
           for b in ("motor", "pump", "ship", "house")]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [
        {"prompt": f"{split}: the pump {i}", "answer": f"oil {i % 3}", "split": split}
        for split, count in (("train", 24), ("dev", 2), ("test", 2))
        for i in range(count)
    ]
    path = tmp_path_factory.mktemp("data") / "task.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    path.write_text("\n\n".join(STORIES))
    return path


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    turns = [{"role": "user", "content": "is it hot?"}, {"role": "assistant", "content": "yes"}]
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": turns * n}) + "\n" for n in (1, 2, 3)))
    return path


@pytest.fixture(scope="module")
def student(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("student") / "s", num_hidden_layers=1)


@torch.inference_mode()
def nats(folder: Path, texts: list[str]) -> float:
    """Mean negative log-likelihood of texts, each alone, through plain transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).float()
    total = count = 0.0
    for text in texts:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
        total += F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return total / count


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_corpus_is_learned_beside_the_items(
    tiny_llama: Path, student: Path, data: Path, text: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"steps": 25, "batch_size": 12, "loss": "cross-entropy", "seed": 3}
    run = {
        "items": {"data": data},
        "both": {"data": data, "corpus": [str(text)]},
        "text": {"corpus": [str(text)], "row_length": 64},
    }
    found = {
        name: flyweight.distill(str(tiny_llama), str(student), tmp_path / name, **given, **options)
        for name, given in run.items()
    }
    on_text = {name: nats(folder, STORIES) for name, folder in found.items()}
    assert on_text["both"] < 0.7 * on_text["items"]
    assert on_text["text"] < 0.7 * on_text["items"]
    answers = [f"oil {i}" for i in range(3)]
    assert nats(found["both"], answers) < nats(student, answers)


@pytest.mark.parametrize(
    "live",
    [{}, {"temperature": 2.0}, {"match_hidden": 0.1}, {"on_policy": 0.5, "steps": 6}],
    ids=["recorded", "temperature", "matching", "on-policy"],
)
def test_the_seed_decides_with_any_teacher(
    tiny_llama: Path,
    student: Path,
    data: Path,
    text: Path,
    chats: Path,
    tmp_path: Path,
    live: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: dict[str, Any] = {"data": data, "corpus": [str(text), str(chats)], "batch_size": 12}
    given |= {"steps": 3, **live}  # as many steps on packed rows with each
    outs = [
        flyweight.distill(str(tiny_llama), str(student), tmp_path / str(n), seed=n // 2, **given)
        for n in range(3)
    ]
    assert weights(outs[0]) == weights(outs[1])
    assert weights(outs[0]) != weights(outs[2])
    told = " ".join(capsys.readouterr().err.split())
    assert "stories.txt: 7 documents, 185 tokens in 7 pieces, from its beginning" in told
    assert "chats.jsonl: 3 documents, 87 tokens in 3 pieces, all of it, 2.0 times over" in told
    assert ("The teacher is not run" in told) == (not live)


@torch.inference_mode()
def apart(teacher: Path, student: Path, texts: list[str]) -> float:
    """Mean KL(teacher || student) in nats a token, each text alone, through plain transformers."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    models = [AutoModelForCausalLM.from_pretrained(each).float() for each in (teacher, student)]
    found = []
    for text in texts:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
        log_p, log_q = (each(ids).logits[0, :-1].log_softmax(-1) for each in models)
        found.append((log_p.exp() * (log_p - log_q)).sum(-1))
    return torch.cat(found).mean().item()


def test_the_student_writes_beside_a_corpus_from_the_command_line(
    tiny_llama: Path, student: Path, data: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    told = CliRunner().invoke(cli.application(), [
        "distill", str(tiny_llama), str(student), str(out), "--data", str(data),
        "--corpus", str(text), "--on-policy", "0.3", "--kl", "1", "--steps", "40",
        "--batch-size", "12", "--learning-rate", "5e-3",
    ])  # fmt: skip
    assert told.exit_code == 0, told.output
    chats = [f"the pump {i} oil {i % 3}" for i in range(6)]
    for texts in (STORIES, chats):
        assert apart(tiny_llama, out, texts) < 0.8 * apart(tiny_llama, student, texts)
    assert list(tmp_path.iterdir()) == [out]


def test_items_are_not_recorded_again_for_a_corpus(
    tiny_llama: Path, student: Path, data: Path, text: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"data": data, "steps": 2, "cache": tmp_path / "kept"}
    flyweight.distill(str(tiny_llama), str(student), tmp_path / "a", **given)
    [items] = given["cache"].iterdir()
    flyweight.distill(str(tiny_llama), str(student), tmp_path / "b", corpus=[str(text)], **given)
    assert len(list(given["cache"].iterdir())) == 2
    assert items in given["cache"].iterdir()


def test_a_corpus_that_asks_the_test_is_refused(
    tiny_llama: Path, student: Path, data: Path, tmp_path: Path
) -> None:
    line = next(n for n, each in enumerate(data.read_text().splitlines(), 1) if "test: " in each)
    leak = tmp_path / "leak.jsonl"
    leak.write_text('{"text": "fine"}\n{"prompt": "Test:  the pump 0", "answer": "oil"}\n')
    with pytest.raises(TaskError, match=rf"leak.jsonl, line 2: asks what .* on line {line} "):
        flyweight.distill(
            str(tiny_llama), str(student), tmp_path / "out", data=data, corpus=[str(leak)]
        )
    assert not (tmp_path / "out").exists()


def test_what_a_row_leaves_nothing_of_is_counted(
    tiny_llama: Path, student: Path, chats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Chats whose answer comes later than a row ends; nothing of an empty corpus is left either."""
    long = json.dumps({"prompt": "is the pump hot? " * 9, "answer": "yes"}) + "\n"
    (tmp_path / "long.jsonl").write_text(long * 45)
    (tmp_path / "mixed.jsonl").write_text(long * 45 + chats.read_text())
    (tmp_path / "empty.jsonl").write_text('{"text": null}\n')

    def distilled(corpus: str) -> None:
        flyweight.distill(
            str(tiny_llama), str(student), tmp_path / "out", corpus=[str(tmp_path / corpus)],
            row_length=32, steps=1, batch_size=1, loss="cross-entropy",
        )  # fmt: skip

    lost = "45 documents have nothing to learn within 32 tokens"
    with pytest.raises(TaskError, match=f"long.jsonl: {lost}. Give a longer --row-length"):
        distilled("long.jsonl")
    with pytest.raises(TaskError, match=r"empty\.jsonl: holds nothing to learn"):
        distilled("empty.jsonl")
    distilled("mixed.jsonl")
    told = " ".join(capsys.readouterr().err.split())
    assert f"mixed.jsonl: {lost}; " in told
    assert "mixed.jsonl: 2 documents" in told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": None}, "--data or --corpus"),
        ({"corpus_share": 0.0}, "--corpus-share is 0.0"),
        ({"corpus_share": 1.0}, "--corpus-share is 1.0"),
        ({"row_length": 64}, "--row-length: only corpora"),
        ({"corpus": ["TEXT"], "row_length": 3}, "--row-length is 3"),
        ({"corpus": ["TEXT"], "row_length": 1000}, "to 512 .the context"),
        ({"corpus": ["TEXT"], "data": None, "on_policy": 0.5}, "--on-policy: .* Give --data too"),
        ({"corpus": ["TEXT"], "on_policy": 1.0}, "--on-policy is 1.0: of 500 steps it takes 500"),
        ({"corpus": ["TEXT"], "on_policy": 0.5, "loss": "cross-entropy"}, "--on-policy means"),
        ({"corpus": ["TEXT"], "data": None, "tool_weight": 2.0}, "--tool-weight is for"),
        ({"corpus": ["nowhere.txt"]}, "nowhere.txt: no such file"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tiny_llama: Path,
    student: Path,
    data: Path,
    text: Path,
    tmp_path: Path,
    options: dict[str, Any],
    said: str,
) -> None:
    options = {"data": data, **options}
    if options.get("corpus") == ["TEXT"]:
        options["corpus"] = [str(text)]
    with pytest.raises(FlyweightError, match=said) as caught:
        flyweight.distill(str(tiny_llama), str(student), tmp_path / "out", **options)
    assert isinstance(caught.value, OptionError | TaskError)
    assert list(tmp_path.iterdir()) == []
