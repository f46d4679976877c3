"""Teaching eyes: they learn, the language model does not change, a kill costs nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM

from flyweight.distill.trainer import Schedule
from flyweight.errors import FolderError, OptionError, TaskError, TeacherError
from flyweight.folder import sha256_of
from flyweight.tasks.read import read_task
from flyweight.vision import pixels
from flyweight.vision.add import add_vision
from flyweight.vision.facts import read_facts
from flyweight.vision.language import language_sha256, language_tensors, text_tensors
from flyweight.vision.mllama import load
from flyweight.vision.objective import seeing
from flyweight.vision.pixels import Cutter
from flyweight.vision.rows import hashes_of, pictures_of
from flyweight.vision.train import train_vision
from flyweight.vision.training import pupil_of

QUICK = {"steps": 60, "batch_size": 6, "learning_rate": 3e-3}
CAPTIONS = QUICK | {"align_steps": 10}


@pytest.fixture(scope="module")
def taught(blind: Path, lessons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eyes that were taught colours."""
    out = tmp_path_factory.mktemp("taught") / "model"
    return train_vision(blind, out, data=lessons, captions=lessons, **CAPTIONS)


def test_the_language_model_is_the_very_one_and_the_eyes_are_not(
    taught: Path, blind: Path, text_model: Path
) -> None:
    text = AutoModelForCausalLM.from_pretrained(text_model, dtype="float32").eval()
    model, before = load(taught), load(blind)
    wanted = language_sha256(text_tensors(text))
    assert language_sha256(language_tensors(model)) == wanted
    assert read_facts(taught)["language_sha256"] == wanted
    ids = torch.randint(10, 290, (2, 9))
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, text(input_ids=ids).logits)
    own = dict(model.named_parameters())
    gates = [name for name in own if name.endswith("_gate")]
    assert len(gates) == 4
    assert all(float(own[name].detach().abs()) > 0 for name in gates)
    new = "model.language_model.embed_tokens.weight"
    image = model.config.image_token_index
    assert image == 300
    assert not torch.equal(own[new][image], dict(before.named_parameters())[new][image])
    patches = "model.vision_model.patch_embedding.weight"
    assert not torch.equal(own[patches], dict(before.named_parameters())[patches])
    assert not taught.with_name("model.work").exists()


def test_what_was_taught_is_seen(taught: Path, lessons: Path) -> None:
    from flyweight.vision.engine import VisionEngine
    from flyweight.vision.prompts import with_picture

    right = 0
    items = [json.loads(line) for line in lessons.read_text().splitlines()]
    held = [item for item in items if item["split"] != "train"]
    with VisionEngine(taught, context=64) as engine:
        for item in held:
            engine.see(Image.open(lessons.parent / item["image"]).convert("RGB"))
            asked = with_picture([{"role": "user", "content": item["prompt"]}])
            right += engine.generate(engine.form.prompt(asked), 8).text == item["answer"]
    assert right > len(held) * 2 / 3  # a third by chance


# Killed as soon as its second stage has a checkpoint, however busy the machine is.
KILLED = """
import os, signal
from importlib import import_module
from pathlib import Path
trainer = import_module("flyweight.distill.trainer")
from flyweight.vision.train import train_vision
trainer.SAVE_EVERY, seal, stages = 0.2, trainer.seal, set()
def sealed(folder, **told):
    seal(folder, **told)
    stages.add(folder.parent)
    if len(stages) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
trainer.seal = sealed
train_vision(Path({blind!r}), Path({out!r}), {arguments})
"""


def test_a_killed_training_goes_on_to_the_same_eyes(
    blind: Path, lessons: Path, tmp_path: Path
) -> None:
    whole = train_vision(blind, tmp_path / "whole", data=lessons, captions=lessons, **CAPTIONS)
    arguments = f"data=Path({str(lessons)!r}), captions=Path({str(lessons)!r}), **{CAPTIONS!r}"
    code = KILLED.format(blind=str(blind), out=str(tmp_path / "killed"), arguments=arguments)
    child = subprocess.run([sys.executable, "-c", code], check=False, env=os.environ, timeout=300)
    assert child.returncode == -signal.SIGKILL
    work = tmp_path / "killed.work"
    assert len(list(work.glob("*/checkpoint-*/complete.json"))) == 2
    assert not (tmp_path / "killed").exists()
    killed = train_vision(blind, tmp_path / "killed", data=lessons, captions=lessons, **CAPTIONS)
    assert sha256_of(killed / "model.safetensors") == sha256_of(whole / "model.safetensors")
    assert not work.exists()


def test_only_one_process_teaches_and_other_pictures_are_learned_anew(
    blind: Path, lessons: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "lessons"
    shutil.copytree(lessons.parent, copied)
    data, quick = copied / lessons.name, QUICK | {"steps": 3}
    with pupil_of(blind, tmp_path / "out") as pupil:
        with pytest.raises(FolderError, match="another process"):
            train_vision(blind, tmp_path / "out", data=data, **quick)
        task = read_task(data, pictures=True)
        every = [item for split in task.splits.values() for item in split]
        schedule = Schedule(3, 6, 3e-3)

        def learned() -> bytes:
            known = hashes_of(pictures_of(every, data), data)
            pupil.past = ["begun"]
            pupil.opened.model.load_state_dict(start)
            pupil.learn(task, data, known, schedule, "Teaching")
            gate = "model.language_model.layers.3.cross_attn_attn_gate"
            return pupil.opened.model.get_parameter(gate).detach().numpy().tobytes()

        start = {name: each.clone() for name, each in pupil.opened.model.state_dict().items()}
        first = learned()
        assert learned() == first  # it is known
        for file in copied.glob("*.png"):
            Image.new("RGB", (60, 64), (int(file.stem) * 8, 9, 9)).save(file)
        assert learned() != first


def test_pictures_are_cut_once_and_what_a_kill_left_is_room(
    blind: Path, lessons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, cutters = Cutter.cut, []
    monkeypatch.setattr(Cutter, "cut", lambda self, image: cutters.append(0) or cut(self, image))
    asked = []

    def room(file: Path, wanted: int) -> None:
        asked.append((wanted, [each for each in work.iterdir() if each.name.endswith("u8")]))

    monkeypatch.setattr(pixels, "check_space", room)
    task = read_task(lessons, pictures=True)
    names = pictures_of(task.train, lessons)
    known, work = hashes_of(names, lessons), tmp_path / "out.work"

    def learn(steps: int, *, stopped: bool) -> None:
        with pupil_of(blind, tmp_path / "out") as pupil:
            pupil.learn(task, lessons, known, Schedule(steps, 6, 3e-3), "Teaching")
            if stopped:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(2, stopped=True)
    [shelf] = work.glob("*.u8")
    size = shelf.stat().st_size
    with pytest.raises(KeyboardInterrupt):
        learn(3, stopped=True)
    assert (len(cutters), asked) == (len(names), [(size, [])])
    shelf.rename(work / f".{shelf.name}")  # as if it had been killed meanwhile
    learn(4, stopped=False)
    assert (len(cutters), asked) == (2 * len(names), [(size, [])] * 2)


def test_eyes_alone_are_put_together_again(
    blind: Path, lessons: Path, text_model: Path, tmp_path: Path
) -> None:
    quick = QUICK | {"steps": 4}
    whole = train_vision(blind, tmp_path / "whole", data=lessons, **quick)
    eyes = train_vision(blind, tmp_path / "eyes", data=lessons, eyes_only=True, **quick)
    assert not (eyes / "model.safetensors").exists()
    size = (eyes / "eyes.safetensors").stat().st_size
    assert size < (whole / "model.safetensors").stat().st_size
    joined = add_vision(str(text_model), tmp_path / "joined", encoder=str(eyes))
    one, other = load(whole).state_dict(), load(joined).state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)

    changed = tmp_path / "changed"
    shutil.copytree(text_model, changed)
    model = AutoModelForCausalLM.from_pretrained(text_model)
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    model.save_pretrained(changed)
    with pytest.raises(TeacherError, match="another language model"):
        add_vision(str(changed), tmp_path / "wrong", encoder=str(eyes))
    assert not (tmp_path / "wrong").exists()


def test_documents_of_a_row_see_the_picture_from_their_own_token_on() -> None:
    ids = torch.tensor([[5, 7, 6, 6, 5, 5, 7, 6], [5, 5, 5, 7, 6, 5, 5, 5]])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3, 4, 0, 1, 2]])
    found = seeing(ids, positions, 7).long().tolist()
    assert found == [[0, 1, 1, 1, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0]]


def lines(file: Path, *records: dict[str, object]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def test_lessons_without_dev_and_test_are_learned_all(
    blind: Path, lessons: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def learn(name: str, splits: list[str]) -> Path:
        for number in range(4):
            shutil.copy(lessons.parent / f"{number}.png", tmp_path / f"{number}.png")
        told = [
            {"image": f"{n}.png", "prompt": "what", "answer": "red", "split": split}
            for n, split in enumerate(splits)
        ]
        data = lines(tmp_path / f"{name}.jsonl", *told)
        return train_vision(blind, tmp_path / name, data=data, **QUICK)

    def learned(folder: Path) -> bytes:
        return (folder / "model.safetensors").read_bytes()

    alone = learn("alone", ["train", "train"])
    assert "alone.jsonl: all of it is learned" in capfd.readouterr().err
    beside = learn("beside", ["train", "train", "dev", "test"])
    assert "all of it is learned" not in capfd.readouterr().err
    assert learned(alone) == learned(beside)
    with pytest.raises(TaskError, match="no line has the split train"):
        learn("none", ["dev", "test"])


def test_bad_lessons_are_named_and_nothing_is_written(
    blind: Path, text_model: Path, lessons: Path, tmp_path: Path
) -> None:
    for number in range(4):
        shutil.copy(lessons.parent / f"{number}.png", tmp_path / f"{number}.png")
    shutil.copy(tmp_path / "0.png", tmp_path / "copy.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    good = [
        {"image": f"{n}.png", "prompt": "what", "answer": "red", "split": split}
        for n, split in enumerate(("train", "dev", "test"))
    ]
    bad = {
        "line 4: no image": {"prompt": "what", "answer": "red", "split": "train"},
        "line 4: no answer": {"image": "3.png", "prompt": "what", "split": "train"},
        "broken.png": {"image": "broken.png", "prompt": "a", "answer": "b", "split": "train"},
        "gone.png": {"image": "gone.png", "prompt": "a", "answer": "b", "split": "train"},
        "is the training picture": {
            "image": "copy.png", "prompt": "a", "answer": "b", "split": "test",
        },
    }  # fmt: skip
    for told, record in bad.items():
        data = lines(tmp_path / "images.jsonl", *good, record)
        with pytest.raises(TaskError, match=told):
            train_vision(blind, tmp_path / "out", data=data, **QUICK)
        assert not (tmp_path / "out").exists()
    data = lines(tmp_path / "images.jsonl", *good)
    with pytest.raises(TeacherError, match="has no eyes"):
        train_vision(text_model, tmp_path / "out", data=data, **QUICK)
    with pytest.raises(OptionError):
        train_vision(blind, tmp_path / "out", data=data, steps=0)
    assert not (tmp_path / "out").exists()
