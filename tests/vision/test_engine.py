"""The engine: transformers' answers, one look a picture, nobody's words taken for a picture."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from flyweight.cli import application
from flyweight.errors import EngineError, OptionError, TeacherError
from flyweight.runtime.constraint import Constraint
from flyweight.runtime.engine import Streamed
from flyweight.serve.eyes import find_eyes, open_eyes
from flyweight.serve.loaded import Settings
from flyweight.serve.wire import ChatRequest
from flyweight.tasks.items import Item
from flyweight.vision import engine as engines
from flyweight.vision import shipped
from flyweight.vision.eight_bits import eight_bits
from flyweight.vision.engine import VisionEngine
from flyweight.vision.int8 import write_int8
from flyweight.vision.mllama import load
from flyweight.vision.prompts import with_picture
from flyweight.vision.rows import rows_of
from flyweight.vision.terminal import VisionTerminal
from flyweight.vision.vision_folder import open_vision
from seeing import make_blind, make_seeing

Draw = Callable[..., Image.Image]


@pytest.fixture(scope="module")
def engine(seeing: Path) -> Iterator[VisionEngine]:
    with VisionEngine(seeing, context=256) as engine:
        yield engine


def asked(engine: VisionEngine, text: str = "what is it") -> list[int]:
    return engine.form.prompt(with_picture([{"role": "user", "content": text}]))


@torch.no_grad()
def transformers_answer(folder: Path, image: Image.Image, prompt: list[int], count: int) -> Any:
    """The greedy answer of transformers' `generate` on the corrected model."""
    opened, model = open_vision(folder), load(folder)
    inputs = opened.cutter.given([opened.cutter.cut(image)])
    ids = torch.tensor([prompt])
    sees = (ids == opened.image_id).long().cumsum(1)
    mask = sees[:, :, None, None] * inputs["aspect_ratio_mask"][:, None]
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        cross_attention_mask=mask,
        max_new_tokens=count,
        do_sample=False,
        **inputs,
    )
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("size", [(90, 70), (60, 60), (40, 200), (300, 40), (40, 160), (128, 90)])
def test_answers_are_transformers_for_pictures_of_any_shape(
    size: tuple[int, int], seeing: Path, engine: VisionEngine, draw: Draw
) -> None:
    image = draw(sum(size), size)
    engine.see(image)
    prompt = asked(engine)
    found = engine.generate(prompt, 24)
    wanted = transformers_answer(seeing, image, prompt, 24)
    assert [*found.ids, *([found.stop_id] if found.stop_id is not None else [])] == wanted


def test_texts_are_answered_as_transformers_does(seeing: Path, engine: VisionEngine) -> None:
    engine.see(None)
    prompt = engine.form.prompt([{"role": "user", "content": "pump 5 leaks"}])
    found = engine.generate(prompt, 16)
    with torch.no_grad():
        ids = torch.tensor([prompt])
        out = load(seeing).generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
        )
    wanted = out[0, len(prompt) :].tolist()
    assert [*found.ids, *([found.stop_id] if found.stop_id is not None else [])] == wanted


def test_a_picture_is_looked_at_once(engine: VisionEngine, draw: Draw) -> None:
    looks = 0

    def count(*_: object) -> None:
        nonlocal looks
        looks += 1

    hook = engine._open.model.vision_model.register_forward_hook(count)
    engine.see(draw(5))
    first = engine.generate(asked(engine), 4)
    engine.see(draw(5))
    engine.generate(asked(engine, "and how large"), 4)
    engine.see(draw(6))
    engine.generate(asked(engine), 4)
    engine.see(draw(5))  # it is known still
    again = engine.generate(asked(engine), 4)
    hook.remove()
    assert looks == 2
    assert again.ids == first.ids


def test_what_was_read_is_not_read_again(engine: VisionEngine, draw: Draw) -> None:
    engine.see(draw(7))
    said = with_picture([{"role": "user", "content": "what is it"}])
    first = engine.generate(engine.form.prompt(said), 6, reuse=True)
    more = [
        *said,
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "and now"},
    ]
    prompt = engine.form.prompt(more)
    again = engine.generate(prompt, 6, reuse=True)
    assert again.prompt_tokens < len(prompt)
    assert again.ids == engine.generate(prompt, 6).ids
    engine.see(draw(8))  # another picture: all is read anew
    assert engine.generate(prompt, 6, reuse=True).prompt_tokens == len(prompt)


def test_an_answer_that_was_ended_leaves_nothing_behind(engine: VisionEngine, draw: Draw) -> None:
    engine.see(draw(7))
    first, other = asked(engine), asked(engine, "what else is there to be seen in it")
    wanted = engine.generate(first, 1, top=5, reuse=True).top

    def leave(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.stream(other, 8, leave)
    assert engine.generate(first, 1, top=5, reuse=True).top == wanted


def test_a_model_with_another_activation_is_computed_with_it(
    make_llama: Callable[..., Path], tmp_path: Path, draw: Draw
) -> None:
    text = make_llama(tmp_path / "text", num_hidden_layers=4, hidden_act="gelu")
    folder = make_seeing(make_blind(text, tmp_path / "blind"), tmp_path / "seeing")
    with VisionEngine(folder, context=128) as engine:
        engine.see(draw(2))
        prompt = asked(engine)
        found = engine.generate(prompt, 16)
    wanted = transformers_answer(folder, draw(2), prompt, 16)
    assert [*found.ids, *([found.stop_id] if found.stop_id is not None else [])] == wanted


def test_a_folder_without_some_of_its_weights_is_refused(seeing: Path, tmp_path: Path) -> None:
    shutil.copytree(seeing, tmp_path / "half")
    file = tmp_path / "half" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if "cross_attn.v_proj" in name))
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(TeacherError, match="1 of its tensors missing"):
        VisionEngine(tmp_path / "half")


def test_words_are_never_taken_for_a_picture(engine: VisionEngine) -> None:
    said = [{"role": "user", "content": "<|image|> what is <|end|> this"}]
    assert engine._image_id not in engine.form.prompt(said)
    assert engine.form.prompt(with_picture(said)).count(engine._image_id) == 1


def test_streams_samples_and_holds_to_constraints(engine: VisionEngine, draw: Draw) -> None:
    engine.see(draw(9))
    prompt = asked(engine)
    pieces: list[str] = []
    told = engine.stream(prompt, 12, lambda piece: pieces.append(piece.text), reuse=False)
    assert "".join(pieces) == told.text
    assert engine.generate(prompt, 12).text.startswith(told.text)  # half characters are not given
    one, same, other = (
        engine.generate(prompt, 12, temperature=1.5, seed=seed).ids for seed in (1, 1, 2)
    )
    assert one == same != other
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
              "additionalProperties": False}  # fmt: skip
    held = engine.generate(prompt, 40, constraint=Constraint.json_schema(schema))
    assert held.text.replace(" ", "").replace("\n", "") in ('{"ok":true}', '{"ok":false}')
    assert len(engine.generate(prompt, 3, top=5).top[0]) == 5
    with pytest.raises(EngineError, match="do not fit"):
        engine.generate(prompt, 1000)


def test_eight_bits_say_nearly_the_same(seeing: Path, draw: Draw) -> None:
    with VisionEngine(seeing, context=64) as whole, VisionEngine(seeing, context=64, bits=8) as cut:
        for engine in (whole, cut):
            engine.see(draw(4))
        prompt = asked(whole)
        wide, narrow = (dict(engine.generate(prompt, 1, top=300).top[0]) for engine in (whole, cut))
    one = torch.tensor([wide[i] for i in sorted(wide)])
    other = torch.tensor([narrow[i] for i in sorted(wide)])
    assert (one - other).std() < 0.1 * one.std()
    assert not torch.equal(one, other)


def test_a_file_of_8_bits_runs_alone_and_its_weights_stay_what_they_are(
    seeing: Path, draw: Draw, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(seeing, alone)
    write_int8(load(seeing), alone / "int8.safetensors")
    (alone / "model.safetensors").unlink()
    with VisionEngine(alone, context=64, bits=8) as engine:
        engine.see(draw(4))
        assert engine.generate(asked(engine), 3).written
    held = open_vision(alone, bits=8).model
    for name, weight in held.named_parameters():
        if name.endswith("_proj.weight"):
            multiplied = eight_bits(weight.detach()).weight().dequantize()
            torch.testing.assert_close(multiplied, weight.detach(), rtol=1e-6, atol=0)


def test_what_is_closed_is_freed(seeing: Path, draw: Draw) -> None:
    found, _ = find_eyes(seeing, None)
    loaded = open_eyes("eyes", found, 64, Settings())
    engine = loaded.engine
    engine.see(draw(1))
    prompt = asked(engine)
    assert loaded.tokens("what")
    assert engine.generate(prompt, 2).written
    held = [engine._open, engine._open.model.vision_model, engine._decoder.embedding]
    left = [weakref.ref(each) for each in (loaded, *held)]
    loaded.close()
    del loaded, held
    assert left[0]() is None  # at once: nothing in it holds it
    gc.collect()
    assert [each() for each in left] == [None] * len(left)
    with pytest.raises(EngineError, match="closed"):
        engine.generate(prompt, 2)


def test_folders_without_eyes_are_refused(text_model: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="has no eyes"):
        VisionEngine(text_model)
    with pytest.raises(TeacherError, match=r"config\.json"):
        VisionEngine(tmp_path)
    with pytest.raises(OptionError):
        VisionEngine(text_model, bits=3)


def test_chat_asks_as_training_and_the_service_do_whatever_the_turn(
    seeing: Path, engine: VisionEngine, draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture comes with the first message of its conversation, once."""
    picture = tmp_path / "a.png"
    draw(3).save(picture)
    given: list[list[int]] = []

    def stream(prompt: list[int], *_: Any, **__: Any) -> Streamed:
        given.append(prompt)
        return Streamed("", True, 0, 0.0, 0.0, len(prompt))

    monkeypatch.setattr(engine, "stream", stream)
    terminal = VisionTerminal(engine, engine.form, Console(quiet=True), 20, "be brief")
    for typed in (f"/image {picture}", "what is it", "and how large", "/alone", "and now",
                  f"/save {tmp_path / 'said.json'}"):  # fmt: skip
        terminal.take(typed)
    said = json.loads((tmp_path / "said.json").read_text())["messages"]
    words = [{**each, "content": each["content"][1]["text"]} if place == 1 else each
             for place, each in enumerate(said)]  # fmt: skip
    for place, turns in enumerate((words[:2], words[:4], [words[0], words[5]])):
        item = Item(tuple(turns), "that", image="a.png", folder=str(tmp_path))
        [row] = rows_of([item], [str(picture)], open_vision(seeing), tmp_path)
        assert row["input_ids"].tolist()[: len(given[place])] == given[place]
        assert not row["weights"][: len(given[place])].any()
    url = {"type": "image_url", "image_url": {"url": "data:,"}}
    parts = [url, {"type": "text", "text": words[1]["content"]}]
    sent = [words[0], {"role": "user", "content": parts}, *words[2:4]]
    request = ChatRequest.model_validate({"messages": sent})
    assert engine.form.prompt([each.plain() for each in request.messages]) == given[1]


def test_chat_answers_about_a_picture(
    seeing: Path, text_model: Path, draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path / "state"))
    draw(3).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    run = CliRunner().invoke
    app = application()
    good = run(app, ["chat", str(seeing), "what is it", "--image", str(tmp_path / "a.png")])
    assert good.exit_code == 0, good.output
    with VisionEngine(seeing) as engine:
        engine.see(draw(3))
        wanted = engine.generate(asked(engine), 200).text
    assert wanted[:20] in good.stdout
    typed = run(
        app,
        ["chat", str(seeing)],
        input=f"/image {tmp_path / 'a.png'}\nwhat is it\n/image {tmp_path / 'b.png'}\n\n",
    )
    assert wanted[:20] in typed.stdout
    assert "b.png" in typed.stdout  # said in words; the conversation goes on
    monkeypatch.setattr(engines, "VisionEngine", None)  # nothing is loaded to refuse these
    monkeypatch.setattr(shipped, "shipped", None)
    image = ["--image", str(tmp_path / "a.png")]
    for wrong, told in (
        ([str(seeing), "--image", str(tmp_path / "b.png")], "b.png"),
        ([str(seeing), "--image", str(tmp_path / "gone.png")], "gone.png"),
        (["what is it", "--image", str(tmp_path / "gone.png")], "gone.png"),
        ([str(text_model), "hi", *image], "has no eyes"),
        ([str(seeing), "x" * 300, "--image", str(tmp_path / "b.png")], "b.png"),
        (["x" * 300], "no such file or folder"),
        ([f"{seeing}s", *image], "no such file or folder"),
        (["out/eyse", "hi", *image], "no such file or folder"),
        (["eyse/", *image], "no such file or folder"),
        ([str(seeing), "hi", "--bits", "5"], "Give 16 or 8"),
        ([], "no model"),
    ):
        refused = run(app, ["chat", *wrong])
        assert refused.exit_code == 2
        assert told in " ".join(refused.output.split())


@pytest.mark.parametrize("asked", ["what is it", "what?", "この写真は何"])
def test_a_question_without_a_model_goes_to_the_one_that_comes_along(
    asked: str, seeing: Path, draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path / "state"))
    draw(3).save(tmp_path / "a.png")
    monkeypatch.setattr(shipped, "shipped", lambda: seeing)
    command = ["chat", asked, "--image", str(tmp_path / "a.png")]
    assert CliRunner().invoke(application(), command).exit_code == 0
