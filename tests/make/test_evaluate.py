"""The verb `eval` on a tiny model, against transformers' own greedy answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import flyweight
from flyweight.errors import OptionError, TaskError

PROMPTS = [f"the pump {n} is hot" for n in range(6)]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path / "state"))


def said_by_transformers(folder: Path, prompt: str) -> str:
    """The first tokens of the greedy answer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    made = model.generate(ids, do_sample=False, max_new_tokens=6)[0, ids.shape[1] :]
    return tokenizer.decode(made).strip("\N{REPLACEMENT CHARACTER}")  # half a character at the end


def write_task(path: Path, asked: dict[str, str | None], unasked: str = "oil") -> Path:
    """A task with these prompts and answers in test; the other splits have prompts only."""
    lines: list[dict[str, Any]] = [
        {"prompt": f"{unasked} {split} {n}", "split": split}
        for split in ("train", "dev")
        for n in range(3)
    ]
    lines += [{"prompt": key, "answer": value, "split": "test"} for key, value in asked.items()]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def test_answers_are_needed_only_where_they_are_compared(tiny_llama: Path, tmp_path: Path) -> None:
    said = {prompt: said_by_transformers(tiny_llama, prompt) for prompt in PROMPTS}
    assert all(said.values())
    wanted = {
        prompt: text if n % 3 else "never said" for n, (prompt, text) in enumerate(said.items())
    }
    # what is not evaluated may even be too long for the model: it is not tokenised
    task = write_task(tmp_path / "task.jsonl", dict(wanted), unasked="valve " * 600)
    found = flyweight.eval(str(tiny_llama), task=task, score="contains")
    assert (found["mean"], found["n"], found["groups"]) == (pytest.approx(4 / 6), 6, 6)
    assert found["bits"] == 16
    with pytest.raises(TaskError, match=r"task\.jsonl, line 4: no answer"):
        flyweight.eval(str(tiny_llama), task=task, split="dev")


def test_a_missing_answer_of_the_split_is_named(tiny_llama: Path, tmp_path: Path) -> None:
    task = write_task(tmp_path / "task.jsonl", {"a": "x", "b": None, "c": None})
    with pytest.raises(TaskError, match=r"task\.jsonl, line 8: no answer") as error:
        flyweight.eval(str(tiny_llama), task=task)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "state").exists()  # test was not opened


def test_plain_text_needs_no_answers(
    tiny_llama: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = write_task(tmp_path / "task.jsonl", dict.fromkeys(PROMPTS))
    monkeypatch.chdir(tmp_path)
    Path("m[v2]").symlink_to(tiny_llama)
    found = flyweight.eval("m[v2]", task=task, score="likelihood")
    assert found["low"] < found["mean"] < found["high"]
    line = " ".join(capsys.readouterr().out.split())
    assert "m[v2] at 16 bits" in line  # brackets are no markup
    assert f"{found['mean']:.3f} bits/byte ({found['low']:.3f} to {found['high']:.3f})" in line


@pytest.mark.parametrize(("option", "value"), [("split", "tests"), ("bits", 6)])
def test_what_cannot_be_chosen_is_refused(
    tiny_llama: Path, tmp_path: Path, option: str, value: Any
) -> None:
    task = write_task(tmp_path / "task.jsonl", {"a": "x"})
    with pytest.raises(OptionError, match=f"--{option} is {value!r}"):
        flyweight.eval(str(tiny_llama), task=task, **{option: value})


def test_a_model_that_writes_labels_is_scored_by_label_and_free_texts_are_not(
    tiny_llama: Path, tmp_path: Path
) -> None:
    said = {prompt: said_by_transformers(tiny_llama, prompt) for prompt in PROMPTS}
    different = write_task(tmp_path / "free.jsonl", {key: f"{key} it is" for key in PROMPTS})
    with pytest.raises(OptionError, match="free: test has 6 items, of which 6 have an answer"):
        flyweight.eval(str(tiny_llama), task=different, score="macro-f1")
    assert not (tmp_path / "state").exists()  # test was not opened
    labels = dict.fromkeys(PROMPTS[:4], "hot") | dict.fromkeys(PROMPTS[4:], "cold")
    assert not set(said.values()) & set(labels.values())
    task = write_task(tmp_path / "labels.jsonl", dict(labels))
    assert flyweight.eval(str(tiny_llama), task=task, score="macro-f1")["mean"] == 0
    assert flyweight.eval(str(tiny_llama), task=task, score="accuracy")["mean"] == 0
