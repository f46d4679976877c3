"""Opening a teacher: what it tells about a good one, and one line about every bad one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from flyweight.checkpoint import open_checkpoint, save_checkpoint
from flyweight.errors import TeacherError, UnsupportedFamily


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "teacher"))


def test_a_good_folder_is_opened(tiny_llama: Path) -> None:
    found = open_checkpoint(tiny_llama)
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    model = found.model()
    assert model.dtype == torch.float32
    assert not model.training
    for name, weight in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    assert found.parameters == plain.num_parameters()
    assert found.bytes == 2 * plain.num_parameters()
    assert found.context == 512
    assert found.commit is None
    assert found.tokenizer().decode(found.tokenizer()("the pump")["input_ids"]) == "the pump"
    weights = (tiny_llama / "model.safetensors").read_bytes()
    assert found.sha256() == hashlib.sha256(weights).hexdigest()
    words = (tiny_llama / "tokenizer.json").read_bytes()
    assert found.tokenizer_sha256() == hashlib.sha256(words).hexdigest()
    assert found.gguf_map.architecture == "llama"


def test_hashes_follow_the_bytes(folder: Path) -> None:
    before = open_checkpoint(folder)
    sums = before.sha256(), before.tokenizer_sha256()
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    after = open_checkpoint(folder)
    assert after.sha256() != sums[0]
    assert after.tokenizer_sha256() == sums[1]


def test_what_is_saved_is_what_the_model_has_become(tiny_llama: Path, tmp_path: Path) -> None:
    source = open_checkpoint(tiny_llama)
    model = source.model()
    with torch.no_grad():
        model.model.norm.weight += 1e-4  # lost at 16 bits
        model.lm_head.weight *= 1.01
    save_checkpoint(model, source.tokenizer(), tmp_path / "saved")
    saved = open_checkpoint(tmp_path / "saved")
    tensors = load_file(tmp_path / "saved" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    for name, weight in model.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, saved.model().state_dict()[name])
    assert saved.tokenizer_sha256() == source.tokenizer_sha256()


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def with_text(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(text)

    return write


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def gpt2(folder: Path) -> None:
    GPT2Config(n_layer=1).save_pretrained(folder)


def odd_sizes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["hidden_size"] = "wide"
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"no such folder.*hub name such as"),
        (without("config.json"), r"no config\.json\. Give"),
        (with_text("config.json", "{"), r"config\.json cannot be read \(.*\)\. Save it again"),
        (with_text("config.json", "[]"), r"config\.json cannot be read"),
        (odd_sizes, r"config\.json cannot be used"),
        (without("model.safetensors"), r"no \*\.safetensors in the folder\. Add"),
        (pickled, r"pickled.*Convert them to safetensors"),
        (truncated, r"model\.safetensors cannot be read.*Download or save it again"),
    ],
)
def test_a_bad_folder_is_one_line(
    folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    with pytest.raises(TeacherError, match=message) as error:
        open_checkpoint(folder)
    assert "\n" not in str(error.value)
    assert "teacher" in str(error.value)


def test_a_file_is_not_a_folder(folder: Path) -> None:
    with pytest.raises(TeacherError, match=r"config\.json is a file\. Give the model's folder"):
        open_checkpoint(folder / "config.json")


@pytest.mark.parametrize("text", ["gpt2", '{"model_type": "unheard-of"}', "{}"])
def test_unknown_architectures_are_told_which_are_known(folder: Path, text: str) -> None:
    if text == "gpt2":
        gpt2(folder)
    else:
        (folder / "config.json").write_text(text)
    with pytest.raises(UnsupportedFamily, match="llama, mistral") as error:
        open_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_offline_the_download_command_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    name = "nobody/no-such-model"
    with pytest.raises(
        TeacherError, match=rf"hf download {name} --local-dir no-such-model"
    ) as error:
        open_checkpoint(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["./nobody/there", "/nobody/there", "nobody", "a/b/c", "~/model"])
def test_what_is_no_hub_name_is_never_asked_of_the_hub(name: str) -> None:
    with pytest.raises(TeacherError, match="no such folder"):
        open_checkpoint(name)


def test_missing_tensors_are_not_drawn_at_random(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        TeacherError, match=r"1 of its tensors missing.*model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        open_checkpoint(folder).model()


def test_tensors_of_another_size_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(7)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(TeacherError, match="weights cannot be read") as error:
        open_checkpoint(folder).model()
    assert "\n" not in str(error.value)


def test_undeclared_parameters_are_refused(make_llama: Callable[..., Path], tmp_path: Path) -> None:
    """Told from the config alone; weights need not be read."""
    config = make_llama(tmp_path / "llama") / "config.json"
    told = json.loads(config.read_text(encoding="utf-8")) | {
        "model_type": "stablelm",
        "qk_layernorm": True,
        "architectures": ["StableLmForCausalLM"],
    }
    config.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(UnsupportedFamily, match=r"no parameter model\.layers\.0.*q_layernorm"):
        open_checkpoint(config.parent).check_declared()


def test_a_missing_tokenizer_is_one_line(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(
        TeacherError, match=r"no tokenizer in the folder\. Add tokenizer\.json"
    ) as error:
        open_checkpoint(folder).tokenizer()
    assert "\n" not in str(error.value)


def test_a_config_that_leaves_sizes_open_is_understood(folder: Path) -> None:
    config = LlamaConfig.from_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    del written["head_dim"]
    (folder / "config.json").write_text(json.dumps(written))
    assert open_checkpoint(folder).shape.head_dim == config.head_dim
