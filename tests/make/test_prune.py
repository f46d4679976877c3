"""The verb `prune` from folder to folder on a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

import flyweight
from flyweight.errors import OptionError, UnsupportedFamily
from flyweight.tasks.encode import encode_items
from flyweight.tasks.read import read_task
from zoo import build


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("task") / "task.jsonl"
    words = ["pump", "valve", "motor", "pressure", "fault"]
    lines = [
        {
            "prompt": f"the {words[n % 5]} {n}",
            "answer": words[n % 3],
            "split": ("train", "train", "dev", "test")[n % 4],
        }
        for n in range(20)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def test_exactly_the_shape_that_was_asked_for_is_cut(
    tiny_llama: Path, task: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sizes = {"layers": 1, "hidden": 48, "mlp": 40, "heads": 1, "kv_groups": 1}
    assert flyweight.prune(str(tiny_llama), out, task=task, **sizes) == out
    config = load(out).config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (1, 48, 40)
    assert (config.num_attention_heads, config.num_key_value_heads) == (1, 1)
    assert (out / "tokenizer.json").read_bytes() == (tiny_llama / "tokenizer.json").read_bytes()
    assert list(tmp_path.iterdir()) == [out]
    again = flyweight.prune(str(tiny_llama), tmp_path / "again", task=task, **sizes)
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_sizes_that_are_not_given_stay_and_so_do_their_weights(
    tiny_llama: Path, task: Path, tmp_path: Path
) -> None:
    out = flyweight.prune(str(tiny_llama), tmp_path / "out", task=task, mlp=64, mend=False)
    cut = load(out).state_dict()
    whole = load(tiny_llama).state_dict()
    for name, weight in whole.items():
        if ".mlp." not in name:
            assert torch.equal(weight, cut[name])
    rows = whole["model.layers.0.mlp.up_proj.weight"].tolist()
    kept = [rows.index(row) for row in cut["model.layers.0.mlp.up_proj.weight"].tolist()]
    assert kept == sorted(kept)
    assert len(kept) == 64


def divergence(folder: Path, teacher: Path, task: Path) -> float:
    """Mean KL(teacher || model) in nats over the tokens of the train items."""
    tokenizer, read = AutoTokenizer.from_pretrained(teacher), read_task(task)
    models, said = [load(each).float() for each in (teacher, folder)], []
    for example in encode_items(tokenizer, read.train, read.name, 512):
        with torch.inference_mode():
            ids = torch.tensor(example.ids[None]).long()
            wanted, found = (model(ids).logits[0].log_softmax(-1) for model in models)
        said.append((wanted.exp() * (wanted - found)).sum(-1))
    return float(torch.cat(said).mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mending_brings_a_cut_nearer_to_the_teacher(
    tiny_llama: Path, task: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    teacher = tmp_path / "teacher"
    load(tiny_llama).to(dtype).save_pretrained(teacher)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(teacher)
    found = []
    for mend in (True, False):
        out = tmp_path / f"out {mend}"
        flyweight.prune(str(teacher), out, task=task, mlp=64, heads=2, kv_groups=1, mend=mend)
        assert load(out).dtype == dtype
        found.append(divergence(out, teacher, task))
    assert found[0] < 0.9 * found[1]


def test_without_sizes_about_the_share_stays(tiny_llama: Path, task: Path, tmp_path: Path) -> None:
    flyweight.prune(str(tiny_llama), tmp_path / "out", task=task, keep=0.4)
    share = load(tmp_path / "out").num_parameters() / load(tiny_llama).num_parameters()
    assert 0.36 <= share <= 0.44


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 1.5}, r"--keep is 1\.5"),
        ({"layers": 3}, r"--layers is 3: the teacher has 2"),
        ({"experts": 2}, r"--experts: the teacher is no mixture"),
        ({"head_dim": 5}, r"--head-dim 5: of 16 only every r-th RoPE pair.*one of 8, 4, 2"),
        ({"keep": 0.5, "layers": 1}, r"--keep and --layers 1: give a share or sizes, not both"),
        ({"heads": 3}, r"--heads 3 does not fit 2 KV groups"),
        ({"hidden": 63}, r"--hidden 63 with 4 heads"),
        ({"keep": 0.001}, r"no shape of the grid"),
        ({"layers": 2}, r"--layers 2: the teacher has exactly that, so there is nothing to cut"),
        (
            {"layers": 2, "hidden": 64, "mlp": 128, "heads": 4, "kv_groups": 2},
            r"--heads 4, --kv-groups 2: the teacher has exactly that",
        ),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(
    tiny_llama: Path, task: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as error:
        flyweight.prune(str(tiny_llama), tmp_path / "out", task=task, **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_an_unknown_architecture_is_refused(
    tiny_llama: Path, task: Path, tmp_path: Path
) -> None:
    unknown = tmp_path / "unknown"
    shutil.copytree(tiny_llama, unknown)
    config = json.loads((unknown / "config.json").read_text(encoding="utf-8"))
    (unknown / "config.json").write_text(json.dumps(config | {"model_type": "gpt_neox"}))
    with pytest.raises(UnsupportedFamily, match="'gpt_neox'"):
        flyweight.prune(str(unknown), tmp_path / "out", task=task, layers=1)
    assert not (tmp_path / "out").exists()


def test_an_untied_teacher_is_tied_with_narrower_heads(
    tiny_llama: Path, task: Path, tmp_path: Path
) -> None:
    out = flyweight.prune(str(tiny_llama), tmp_path / "out", task=task, head_dim=8, tied=True)
    cut = load(out)
    assert (cut.config.head_dim, cut.config.tie_word_embeddings) == (8, True)
    assert cut.lm_head.weight is cut.model.embed_tokens.weight
    with pytest.raises(OptionError, match="--tied: the teacher has no output embedding"):
        flyweight.prune(str(out), tmp_path / "again", task=task, tied=True)


def test_only_the_tokens_of_the_task_stay_and_say_the_same(
    tiny_llama: Path, task: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The logits of the rows that stay are the teacher's: nothing else was cut."""
    out = flyweight.prune(str(tiny_llama), tmp_path / "out", task=task, used_tokens=True)
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in (tiny_llama, out))
    teacher, cut = load(tiny_llama), load(out)
    assert cut.config.vocab_size == len(new) < teacher.config.vocab_size
    kept = old.convert_tokens_to_ids(new.convert_ids_to_tokens(range(len(new))))
    with torch.inference_mode():
        for line in task.read_text(encoding="utf-8").splitlines()[:20]:
            text = json.loads(line)["prompt"]
            ids, renumbered = old(text)["input_ids"], new(text)["input_ids"]
            assert [kept[i] for i in renumbered] == ids
            wanted = teacher(torch.tensor([ids])).logits[..., kept]
            assert torch.equal(cut(torch.tensor([renumbered])).logits, wanted)
    assert new.convert_ids_to_tokens(cut.generation_config.eos_token_id) == old.eos_token
    assert "are split into the same tokens" in " ".join(capfd.readouterr().err.split())


def test_an_encoder_is_cut_by_its_prompts(tiny_llama: Path, task: Path, tmp_path: Path) -> None:
    encoder = build("bert", vocab_size=304, max_position_embeddings=512)
    encoder.save_pretrained(tmp_path / "bert")
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path / "bert")
    sizes = {"layers": 2, "mlp": 64, "heads": 4, "kv_groups": 4, "hidden": 32}
    out = flyweight.prune(str(tmp_path / "bert"), tmp_path / "out", task=task, **sizes)
    config = AutoModelForSequenceClassification.from_pretrained(out).config
    assert (config.hidden_size, config.num_hidden_layers, config.num_labels) == (32, 2, 5)
    again = flyweight.prune(str(tmp_path / "bert"), tmp_path / "again", task=task, keep=0.4)
    share = AutoModelForSequenceClassification.from_pretrained(again).num_parameters()
    assert share == pytest.approx(0.4 * encoder.num_parameters(), rel=0.15)
