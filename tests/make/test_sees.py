"""`make` on a model with eyes and a task of pictures, against its forward pass without a cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MllamaForConditionalGeneration

import flyweight
from flyweight.checkpoint import open_checkpoint
from flyweight.errors import OptionError, TaskError
from flyweight.folder import EYES_NAMES, read_card, read_scores
from flyweight.make.budget import LEAST_BYTES
from flyweight.make.form import form_of
from flyweight.make.report import run_commands
from flyweight.serve import chat_verb
from flyweight.vision.engine import VisionEngine
from flyweight.vision.images import open_image
from flyweight.vision.objective import looking
from flyweight.vision.prompts import with_picture
from flyweight.vision.vision_folder import Opened, open_vision
from seeing import draw_lessons, seeing_folder, write_words

QUESTION = [{"role": "user", "content": "what colour"}]
QUICK: dict[str, Any] = {"score": "contains", "bar": 0.5, "effort": "quick", "steps": 3}


@pytest.fixture(scope="module")
def work(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with eyes, and pictures: of every other one what it says itself is wanted."""
    folder = tmp_path_factory.mktemp("sees")
    seeing_folder(make_llama, folder, layers=4).rename(folder / "teacher")
    (folder / "pictures").mkdir()
    file = draw_lessons(folder / "pictures", 20)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    engine = VisionEngine(folder / "teacher")
    with engine:
        for line in lines[::4] + lines[1::4]:
            engine.see(open_image(file.parent / line["image"]))
            asked = with_picture([{"role": "user", "content": line["prompt"]}])
            line["answer"] = engine.generate(engine.form.prompt(asked), 3).text.strip()
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


@pytest.fixture(scope="module")
def made(work: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYWEIGHT_STATE", str(work / "state"))
        task = work / "pictures" / "images.jsonl"
        return flyweight.make(str(work / "teacher"), task=task, out=work / "out", **QUICK)


def test_the_folder_is_a_smaller_model_that_sees(work: Path, made: Path) -> None:
    card = read_card(made)
    assert card.sees
    assert {*EYES_NAMES.values(), "report.html", "README.md"} <= {p.name for p in made.iterdir()}
    assert (made / "int8.safetensors").stat().st_size < (made / "model.safetensors").stat().st_size
    model = MllamaForConditionalGeneration.from_pretrained(made)
    assert model.num_parameters() == card.parameters < card.teacher.parameters
    assert card.parity.equal + len(card.parity.near_ties) == card.parity.prompts > 0
    assert {row.engine for row in card.rows} == {"torch"}
    assert {row.bits for row in card.rows if row.role == "candidate"} == {16, 8}
    assert all(row.bytes >= LEAST_BYTES[8] * row.parameters for row in card.rows)
    assert {row.role for row in card.rows} >= {"teacher", "quantised teacher", "from scratch"}


@torch.inference_mode()
def greedy(opened: Opened, picture: Path, prompt: str, most: int) -> str:
    """What the model's own forward pass writes, token by token without a cache."""
    asked = with_picture([{"role": "user", "content": prompt}])
    ids = opened.form.prompt(asked)
    start = len(ids)
    shown = opened.cutter.given([opened.cutter.cut(open_image(picture))])
    ends = {opened.tokenizer.eos_token_id}
    while len(ids) < start + most and ids[-1] not in ends:
        whole, places = torch.tensor([ids]), torch.arange(len(ids))[None]
        given = looking(shown, whole, places, opened.image_id)
        ids = [*ids, int(opened.model(whole, **given).logits[0, -1].argmax())]
    return opened.tokenizer.decode([i for i in ids[start:] if i not in ends])


def test_the_teacher_is_scored_by_what_its_forward_pass_writes(work: Path, made: Path) -> None:
    file = work / "pictures" / "images.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    test = [line for line in lines if line["split"] == "test"]
    opened, scores = open_vision(work / "teacher"), read_scores(made)
    right = [
        line["answer"] in greedy(opened, file.parent / line["image"], line["prompt"], 8)
        for line in test
    ]
    assert [bool(score) for score in scores.teacher] == right
    assert {True, False} == set(right)


def test_eval_scores_it_at_both_widths_as_make_did(work: Path, made: Path) -> None:
    task = work / "pictures" / "images.jsonl"
    lines = [json.loads(line) for line in task.read_text().splitlines()]
    opened = open_vision(made)
    right = [
        line["answer"] in greedy(opened, task.parent / line["image"], line["prompt"], 12)
        for line in lines
        if line["split"] == "dev"
    ]
    found = flyweight.eval(str(made), task=task, split="dev", score="contains", bits=16)
    assert found["mean"] == pytest.approx(sum(right) / len(right))
    row = next(row for row in read_card(made).rows if row.role == "teacher")
    own = flyweight.eval(str(work / "teacher"), task=task, split="dev", score="contains", bits=16)
    assert own["mean"] == pytest.approx(row.dev.mean)
    eight = flyweight.eval(str(work / "teacher"), task=task, split="dev", score="contains", bits=8)
    assert eight["bytes"] < 0.6 * own["bytes"]


def test_it_answers_about_a_picture(
    work: Path,
    made: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = work / "pictures" / "0.png"
    monkeypatch.setattr(chat_verb, "LONGEST", 8)  # it was not taught to end
    flyweight.chat(str(made), "what colour", image=picture)
    assert capfd.readouterr().out.strip()
    for bits in (32, 8):
        engine = VisionEngine(made, bits=bits)
        with engine:
            engine.see(open_image(picture))
            assert engine.generate(engine.form.prompt(with_picture(QUESTION)), 4).written
    [command] = run_commands(read_card(made)).values()
    assert "--image" in command


def test_what_cannot_be_is_one_line_and_leaves_nothing(
    work: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    pictures, out = work / "pictures" / "images.jsonl", tmp_path / "out"
    words = write_words(tmp_path)
    for error, match, model, options in (
        (TaskError, "words.jsonl, line 1: no image", work / "teacher", {"task": words}),
        (TaskError, "Leave the field image out", tiny_llama, {"task": pictures}),
        (OptionError, "go by forecasts", work / "teacher", {"task": pictures, "by": "latency"}),
        (OptionError, "answers about pictures", work / "teacher",
         {"task": pictures, "score": "likelihood"}),
    ):  # fmt: skip
        with pytest.raises(error, match=match) as found:
            flyweight.make(str(model), out=out, **options)
        assert "\n" not in str(found.value)
    flyweight.make(str(work / "teacher"), task=pictures, out=out, dry_run=True, **QUICK)
    assert list(tmp_path.iterdir()) == [words]


def test_pictures_are_looked_at_before_anything_is_done(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "pictures", tmp_path / "a")
    shutil.copytree(work / "pictures", tmp_path / "b")
    one, other = (tmp_path / name / "images.jsonl" for name in "ab")
    lines = [json.loads(line) for line in other.read_text().splitlines()]
    moved = {"train": "test", "test": "train", "dev": "dev"}
    told = [line | {"split": moved[line["split"]], "prompt": "another"} for line in lines]
    other.write_text("\n".join(map(json.dumps, told)) + "\n")
    asked = {"out": tmp_path / "out", **QUICK}
    with pytest.raises(TaskError, match=r"is the training picture .* \(a leak\)"):
        flyweight.make(str(work / "teacher"), task=[one, other], **asked)
    file = tmp_path / "a" / "3.png"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(TaskError, match=r"images.jsonl: .*3\.png"):
        flyweight.make(str(work / "teacher"), task=one, **asked)
    lines = [json.loads(line) for line in one.read_text().splitlines()]
    lines[0] |= {"messages": [{"role": "system", "content": "be brief"}]}
    del lines[0]["prompt"]
    one.write_text("\n".join(map(json.dumps, lines)) + "\n")
    with pytest.raises(TaskError, match=r"images.jsonl, line 1: nobody asks"):
        flyweight.make(str(work / "teacher"), task=one, **asked)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b"]


def test_a_rival_from_nothing_begins_with_open_gates_and_says_what_it_would_without(
    work: Path,
) -> None:
    source = open_checkpoint(work / "teacher", pictures=True)
    model = type(source.model())(source.config).float().eval()
    given = {
        "input_ids": torch.tensor([[5, source.config.image_token_index, 7, 8]]),
        "pixel_values": torch.rand(1, 1, 1, 3, 32, 32),
        "aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(1, 1, 1, dtype=torch.long),
        "cross_attention_mask": torch.ones(1, 4, 1, 1, dtype=torch.long),
    }
    with torch.no_grad():
        shut = model(**given).logits
        form_of(source).begin(model)
        torch.testing.assert_close(model(**given).logits, shut)
    gates = [p for name, p in model.named_parameters() if name.endswith("attn_gate")]
    assert all(float(gate.detach().tanh()) > 0.5 for gate in gates)
