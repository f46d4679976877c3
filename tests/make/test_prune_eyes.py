"""The verb `prune` on a model with eyes, from folder to folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, MllamaForConditionalGeneration

import flyweight
from flyweight.errors import OptionError, TaskError, TeacherError
from flyweight.vision.engine import VisionEngine
from flyweight.vision.images import open_image
from flyweight.vision.prompts import with_picture
from flyweight.vision.vision_folder import open_vision
from seeing import draw_lessons, seeing_folder, write_words

QUESTION = [{"role": "user", "content": "what colour"}]


@pytest.fixture(scope="module")
def seeing(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeing_folder(make_llama, tmp_path_factory.mktemp("eyes"), layers=8)


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_lessons(tmp_path_factory.mktemp("lessons"), 15)


def plain(folder: Path) -> Any:
    """transformers' own model of a folder."""
    return MllamaForConditionalGeneration.from_pretrained(folder, dtype="float32").eval()


@torch.inference_mode()
def logits(folder: Path, image: Path) -> torch.Tensor:
    """What transformers says after the question about a picture; its gates let nothing leak."""
    processor = AutoProcessor.from_pretrained(folder)
    text = processor.apply_chat_template(with_picture(QUESTION), add_generation_prompt=True)
    given = processor(
        images=[Image.open(image)], text=text, return_tensors="pt", add_special_tokens=False
    )
    return plain(folder)(**given).logits[0]


def test_every_part_is_cut_and_the_folder_is_one_that_sees(
    seeing: Path, lessons: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sizes = {"layers": 4, "hidden": 32, "heads": 2, "kv_groups": 1, "mlp": 64}
    sizes |= {"encoder_layers": 3, "encoder_mlp": 256}
    assert flyweight.prune(str(seeing), out, task=lessons, **sizes) == out
    model = plain(out)
    text, eyes = model.config.text_config, model.config.vision_config
    assert (text.num_hidden_layers, text.hidden_size, text.intermediate_size) == (4, 32, 64)
    assert (eyes.num_hidden_layers, eyes.intermediate_size, eyes.hidden_size) == (3, 256, 192)
    assert 1 <= len(text.cross_attention_layers) <= 2
    ours = open_vision(out)
    assert {n: p.shape for n, p in ours.model.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }
    with VisionEngine(out) as engine:
        said = []
        for number in range(2):
            engine.see(open_image(lessons.parent / f"{number}.png"))
            prompt = engine.form.prompt(with_picture(QUESTION))
            said.append(engine.generate(prompt, 4).ids)
    assert all(said)


def test_mending_brings_a_cut_nearer_to_the_teacher(
    seeing: Path, lessons: Path, tmp_path: Path
) -> None:
    picture = lessons.parent / "0.png"
    wanted = logits(seeing, picture).log_softmax(-1)
    apart = []
    for mend in (True, False):
        out = tmp_path / f"out {mend}"
        flyweight.prune(str(seeing), out, task=lessons, mlp=96, encoder_mlp=512, mend=mend)
        found = logits(out, picture).log_softmax(-1)
        apart.append(float((wanted.exp() * (wanted - found)).sum(-1).mean()))
    assert apart[0] < 0.9 * apart[1]


def test_tokens_that_the_task_uses_say_the_same_and_the_picture_s_token_is_beyond_them(
    seeing: Path, lessons: Path, tmp_path: Path
) -> None:
    out = flyweight.prune(str(seeing), tmp_path / "out", task=lessons, used_tokens=True)
    old, new = (AutoProcessor.from_pretrained(folder).tokenizer for folder in (seeing, out))
    rows = plain(out).config.text_config.vocab_size
    assert rows < 300
    assert new.convert_tokens_to_ids("<|image|>") == plain(out).config.image_token_index == rows
    kept = old.convert_tokens_to_ids(new.convert_ids_to_tokens(range(rows)))
    for number in range(2):
        image = lessons.parent / f"{number}.png"
        torch.testing.assert_close(logits(out, image), logits(seeing, image)[:, kept])


def test_a_share_is_kept_of_both_parts(seeing: Path, lessons: Path, tmp_path: Path) -> None:
    out = flyweight.prune(str(seeing), tmp_path / "out", task=lessons, keep=0.5, mend=False)
    share = plain(out).num_parameters() / plain(seeing).num_parameters()
    assert 0.45 <= share <= 0.55


def test_what_cannot_be_is_one_line_and_leaves_nothing(
    seeing: Path, lessons: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    def refused(error: type[Exception], match: str, verb: Any, *given: Any, **options: Any) -> None:
        with pytest.raises(error, match=match) as found:
            verb(*given, **options)
        assert "\n" not in str(found.value)

    out = tmp_path / "out"
    words = write_words(tmp_path)
    prune, cut = flyweight.prune, {"layers": 2}
    refused(TaskError, r"words.jsonl, line 1: no image", prune, str(seeing), out, task=words, **cut)
    refused(TaskError, "Leave the field image out", prune, str(tiny_llama), out, task=lessons)
    few = {"task": lessons, "layers": 1}
    refused(OptionError, "--layers is 1: give at least 2", prune, str(seeing), out, **few)
    no_eyes = {"task": words, "encoder_layers": 1}
    refused(OptionError, "--encoder-layers: .*no eyes", prune, str(tiny_llama), out, **no_eyes)
    refused(TeacherError, "has eyes, and this is for models of texts", flyweight.pack, seeing)
    assert list(tmp_path.iterdir()) == [words]
