"""Eyes for a language model that does not change: bit for bit, and in plain transformers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

import zoo
from flyweight.anatomy.gguf import LLAMA
from flyweight.errors import FolderError, OptionError, TeacherError, UnsupportedFamily
from flyweight.folder import GGUF_NAMES, new_folder, sha256_of
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.parity import ParityReport, all_ids, first_difference
from flyweight.vision.add import add_vision
from flyweight.vision.facts import read_facts
from flyweight.vision.mllama import load
from flyweight.vision.objective import seeing as sees
from flyweight.vision.vision_folder import open_vision, save_vision

Draw = Callable[..., Image.Image]


def given(folder: Path, images: list[Image.Image | None], ids: torch.Tensor) -> dict[str, Any]:
    """A batch as the model is given it; rows without a picture see none."""
    opened = open_vision(folder)
    cut = [opened.cutter.cut(image or Image.new("RGB", (8, 8))) for image in images]
    inputs = opened.cutter.given(cut)
    positions = torch.arange(ids.shape[1]).expand(len(ids), -1)
    seen = sees(ids, positions, opened.image_id)
    mask = seen[:, :, None, None].long() * inputs["aspect_ratio_mask"][:, None]
    return {"input_ids": ids, "cross_attention_mask": mask, **inputs}


def tokens(folder: Path, pictures: list[bool], place: int = 4) -> torch.Tensor:
    """Random ids [B, 12], a picture's token at `place` of the rows that have one."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 290, (len(pictures), 12), generator=generator)
    image = open_vision(folder).image_id
    for row, has in enumerate(pictures):
        if has:
            ids[row, place] = image
    return ids


@torch.no_grad()
def test_texts_are_answered_bit_for_bit_as_before(
    text_model: Path, blind: Path, seeing: Path, draw: Draw
) -> None:
    text = AutoModelForCausalLM.from_pretrained(text_model, dtype="float32").eval()
    ids = tokens(blind, [False, False])
    for folder in (blind, seeing):
        assert torch.equal(load(folder)(input_ids=ids).logits, text(input_ids=ids).logits)


@torch.no_grad()
def test_a_picture_is_seen_from_its_token_on_and_in_its_row_alone(
    text_model: Path, seeing: Path, draw: Draw
) -> None:
    text = AutoModelForCausalLM.from_pretrained(text_model, dtype="float32").eval()
    place = 4
    # the image token has no row in the text model: any other stands for it, what is before counts
    ids = tokens(seeing, [True, False, True], place)
    plain = ids.where(ids < 300, 5)
    said = load(seeing)(**given(seeing, [draw(1), None, draw(2)], ids)).logits
    before = text(input_ids=plain).logits
    assert torch.equal(said[1], before[1])
    assert torch.equal(said[0, :place], before[0, :place])
    assert torch.equal(said[2, :place], before[2, :place])
    assert (said[0, place:] - before[0, place:]).abs().amax(-1).min() > 1e-2
    other = load(seeing)(**given(seeing, [draw(3), None, draw(2)], ids)).logits
    assert (said[0, place:] - other[0, place:]).abs().max() > 1e-2  # another picture, other words
    assert torch.equal(said[1:], other[1:])


@torch.no_grad()
def test_plain_transformers_lets_a_picture_into_earlier_tokens(seeing: Path, draw: Draw) -> None:
    """What docs/concepts/vision.md says of it; when this fails, our subclass can go."""
    ids = tokens(seeing, [True, False], 4)
    batch = given(seeing, [draw(1), None], ids)
    plain = AutoModelForImageTextToText.from_pretrained(seeing, dtype="float32").eval()
    ours = load(seeing)(**batch).logits
    theirs = plain(**batch).logits
    assert (ours - theirs)[0, :4].abs().max() > 1e-3
    assert (ours - theirs)[1].abs().max() > 1e-3


def test_the_code_that_shows_it_runs_and_prints_what_stands_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (Path(__file__).parents[2] / "docs/concepts/vision.md").read_text(encoding="utf-8")
    code = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    exec(compile(code, "vision.md", "exec"), {})
    told = re.findall(r"^print.*: ([\d.]+)", code, re.MULTILINE)
    said = re.findall(r"^tensor\(([\d.e-]+)", capsys.readouterr().out, re.MULTILINE)
    assert len(told) == 4
    assert [float(each) for each in said] == pytest.approx([float(each) for each in told], rel=0.05)


@torch.no_grad()
def test_a_new_picture_changes_nothing_before_training(blind: Path, draw: Draw) -> None:
    ids = tokens(blind, [True])
    model = load(blind)
    assert torch.equal(
        model(**given(blind, [draw(1)], ids)).logits, model(**given(blind, [draw(2)], ids)).logits
    )


def test_plain_transformers_loads_the_folder_and_its_processor(seeing: Path, draw: Draw) -> None:
    processor = AutoProcessor.from_pretrained(seeing)
    said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "hi"}]}]
    text = processor.apply_chat_template(said, add_generation_prompt=True)
    batch = processor(images=[draw(1)], text=[text], return_tensors="pt")
    opened = open_vision(seeing)
    assert batch["input_ids"][0].tolist() == opened.form.prompt(said)
    ours = given(seeing, [draw(1)], batch["input_ids"])
    for name in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask", "cross_attention_mask"):
        torch.testing.assert_close(batch[name].to(ours[name].dtype), ours[name])
    model = AutoModelForImageTextToText.from_pretrained(seeing).eval()
    assert model.generate(**batch, max_new_tokens=3).shape[1] > len(batch["input_ids"][0])


def test_the_text_models_files_come_along_and_say_what_the_model_with_eyes_says_of_texts(
    text_model: Path, tmp_path: Path
) -> None:
    source = tmp_path / "text"
    shutil.copytree(text_model, source)
    name = GGUF_NAMES[16]
    write_gguf(source, source / name, 16, LLAMA)
    out = add_vision(str(source), tmp_path / "out", encoder="tiny", tiles=1)
    facts = read_facts(out)
    assert facts["text_files"] == {name: sha256_of(out / name)}
    assert any("texts alone" in each for each in facts["engines"])
    assert any("texts alone" in each for each in facts["formats"])
    told = (out / "README.md").read_text()
    assert name in told
    assert "texts" in told
    prompts, sees, parted = tokens(out, [False] * 8).tolist(), load(out), []
    with LlamaEngine(out / name, context=64) as texts, torch.no_grad():
        for number, prompt in enumerate(prompts):
            said = all_ids(texts.generate(prompt, 16))
            logits = sees(torch.tensor([[*prompt, *said]])).logits[0, len(prompt) - 1 : -1]
            parted += first_difference(number, logits, said)
    report = ParityReport.of(len(prompts), parted)
    assert not report.differing  # but where random weights are undecided
    assert report.equal > len(prompts) // 2


PEAK = """
import sys
from pathlib import Path
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.parity import ParityReport, all_ids, first_difference
from flyweight.vision.add import add_vision
from flyweight.vision import build
def kilobytes(name):
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(name))
before = kilobytes("VmRSS")
add_vision(sys.argv[1], Path(sys.argv[2]), encoder="tiny", tiles=1)
print(kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_a_large_model_is_never_in_memory_thrice(
    make_llama: Callable[..., Path], tmp_path: Path
) -> None:
    text = make_llama(tmp_path / "text", num_hidden_layers=8, hidden_size=512,
                      intermediate_size=4096, vocab_size=300)  # fmt: skip
    command = [sys.executable, "-c", PEAK, str(text), str(tmp_path / "out")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak = int(done.stdout.split()[-1]) * 1024
    assert peak < 2.2 * 2 * (tmp_path / "out" / "model.safetensors").stat().st_size  # in fp32


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "llama biased", "llama"])
def test_a_model_that_mllama_cannot_compute_is_refused(name: str, tmp_path: Path) -> None:
    zoo.build(name).save_pretrained(tmp_path / "text")
    with pytest.raises(UnsupportedFamily, match="cannot be given eyes"):
        add_vision(str(tmp_path / "text"), tmp_path / "out", encoder="tiny")
    assert not (tmp_path / "out").exists()


def test_sizes_that_do_not_fit_are_refused(text_model: Path, tmp_path: Path) -> None:
    for options in ({"image_size": 50, "patch_size": 16}, {"tiles": 0}, {"cross_layers": 9}):
        with pytest.raises(OptionError):
            add_vision(str(text_model), tmp_path / "out", encoder="tiny", **options)
    with pytest.raises(TeacherError, match="no image encoder"):
        add_vision(str(text_model), tmp_path / "out", encoder=str(tmp_path / "none"))
    with pytest.raises(TeacherError, match="has no place"):
        add_vision(str(text_model), tmp_path / "out", encoder=str(text_model))
    assert not (tmp_path / "out").exists()


def test_options_that_trained_eyes_leave_nothing_to_say_are_refused(
    blind: Path, text_model: Path, tmp_path: Path
) -> None:
    opened, eyes = open_vision(blind), tmp_path / "eyes"
    eyes.mkdir()
    save_vision(opened, eyes, str(read_facts(blind)["language_sha256"]), eyes_only=True)
    for option, value in (
        ("tiles", 1), ("tiles", 4), ("image_size", 64), ("patch_size", 16), ("cross_layers", 2),
        ("seed", 3),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=f"--{option.replace('_', '-')}: .* Leave out"):
            add_vision(str(text_model), tmp_path / "out", encoder=str(eyes), **{option: value})
    assert not (tmp_path / "out").exists()
    add_vision(str(text_model), tmp_path / "out", encoder=str(eyes))


def test_an_encoder_that_is_read_is_not_written(
    blind: Path, text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eyes, clip = tmp_path / "eyes", tmp_path / "clip"
    with new_folder(eyes) as folder:  # as train-vision leaves them: a folder that may be replaced
        sha256 = str(read_facts(blind)["language_sha256"])
        save_vision(open_vision(blind), folder, sha256, eyes_only=True)
    with new_folder(clip) as folder:
        CLIPVisionModel(CLIPVisionConfig(**SMALL, hidden_act="gelu")).save_pretrained(folder)
    shutil.copytree(eyes, tmp_path / "small")  # trained eyes, whatever they are called
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for encoder in ("eyes", "clip", "small"):
        for out in (Path(encoder), Path(encoder, "out")):
            with pytest.raises(FolderError, match=f"{out} .* {encoder}, which is read"):
                add_vision(str(text_model), out, encoder=encoder)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    add_vision(str(text_model), Path("tiny"), encoder="tiny")
    add_vision(str(text_model), Path("tiny"), encoder="tiny")  # a size: the folder is not read


@pytest.mark.parametrize("told", ["{", "[]", '{"image_mean": "grey"}', '{"image_std": [1]}'])
def test_an_encoder_whose_normalisation_cannot_be_read_is_refused(
    told: str, text_model: Path, tmp_path: Path
) -> None:
    ViTModel(ViTConfig(**SMALL)).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text(told)
    with pytest.raises(TeacherError, match="no image encoder that can be read"):
        add_vision(str(text_model), tmp_path / "out", encoder=str(tmp_path / "vit"))
    assert not (tmp_path / "out").exists()


SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}


@torch.no_grad()
def without_attention_biases(model: Any, but_keys: bool = False) -> Any:
    """A model drawn at random, whose queries, values and outputs have no biases."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        parameter.normal_(0, 0.2)
        attends = "attn" in name or "attention" in name
        if name.endswith("bias") and attends and not ("k_proj" in name and but_keys):
            parameter.zero_()
        elif "norm" in name and name.endswith("weight"):
            parameter.add_(1)
    return model.eval()


@torch.no_grad()
def test_what_a_clip_knows_is_all_there(text_model: Path, tmp_path: Path) -> None:
    clip = without_attention_biases(CLIPVisionModel(CLIPVisionConfig(**SMALL)), but_keys=True)
    clip.save_pretrained(tmp_path / "clip")
    out = add_vision(str(text_model), tmp_path / "out", encoder=str(tmp_path / "clip"), tiles=1)
    pixels = torch.randn(2, 3, 32, 32)
    # Meta's encoder has tokens up to a multiple of 8, zeros at first; they do not see each other,
    # but are seen by all others
    tokens = clip.pre_layrnorm(clip.embeddings(pixels))
    filled = torch.cat([tokens, torch.zeros(2, -tokens.shape[1] % 8, 32)], 1)
    mask = torch.zeros(1, 1, filled.shape[1], filled.shape[1])
    mask[..., tokens.shape[1] :, tokens.shape[1] :] = torch.finfo(mask.dtype).min
    left: list[torch.Tensor] = []  # what leaves each layer
    for layer in clip.encoder.layers:
        layer.register_forward_hook(lambda *told: left.append(told[-1]))
    said = clip.encoder(filled, attention_mask=mask)
    wanted = clip.post_layernorm(said.last_hidden_state)[:, : tokens.shape[1]]
    eyes = load(out).model.vision_model
    states = eyes(
        pixels[:, None, None],
        torch.ones(2, 1, dtype=torch.long),
        torch.ones(2, 1, 1, dtype=torch.long),
    ).last_hidden_state[:, 0, 0]
    assert (states[..., :32] - wanted).std() < 0.03 * wanted.std()  # bf16 weights
    taps = eyes.config.intermediate_layers_indices
    tapped = states[..., 32:].unflatten(-1, (32, len(taps)))
    for place, tap in enumerate(taps):
        wanted = left[tap][:, : tokens.shape[1]]
        assert (tapped[..., place] - wanted).std() < 0.03 * wanted.std()


@pytest.mark.parametrize("kind", ["vit", "siglip", "clip"])
def test_an_encoder_with_biases_is_nearly_there(
    kind: str, text_model: Path, tmp_path: Path
) -> None:
    models = {
        "vit": lambda: ViTModel(ViTConfig(**SMALL)),
        "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**SMALL)),
        "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**SMALL)),
    }
    torch.manual_seed(2)
    model = models[kind]().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.05 if name.endswith("bias") else 0.15
            parameter.normal_(0, spread)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    model.save_pretrained(tmp_path / kind)
    (tmp_path / kind / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]})
    )
    out = add_vision(str(text_model), tmp_path / "out", encoder=str(tmp_path / kind), tiles=1)
    processor = AutoProcessor.from_pretrained(out).image_processor
    assert list(processor.image_mean) == [0.4, 0.5, 0.6]
    pixels = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        wanted = model(pixels).last_hidden_state[:, -16:]  # patches
        if kind == "clip":
            wanted = model.post_layernorm(wanted)
        states = (
            load(out)
            .model.vision_model(
                pixels[:, None, None],
                torch.ones(8, 1, dtype=torch.long),
                torch.ones(8, 1, 1, dtype=torch.long),
            )
            .last_hidden_state[:, 0, 0, 1:, :32]
        )
    alike = torch.nn.functional.cosine_similarity(states.flatten(), wanted.flatten(), dim=0)
    assert alike > 0.8
