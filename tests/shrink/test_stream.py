"""Cutting on disk: what cutting in memory gives, to the bit; one tensor at a time; whole or not."""

from __future__ import annotations

import json
import os
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from cutting import random_keep
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from flyweight.anatomy import Family, Shape, family_of
from flyweight.errors import FlyweightError, FolderError, NoSpace, OptionError, TeacherError
from flyweight.runtime.pack import pack_checkpoint
from flyweight.shrink import stored, stream
from flyweight.shrink.cut import cut_model
from flyweight.shrink.keep import Keep, keep_all
from flyweight.shrink.retoken import rebuild_tokenizer
from flyweight.shrink.stored import StoredTensor, stored_tensors
from flyweight.shrink.stream import cut_folder
from flyweight.shrink.vocabulary import plan_vocabulary
from zoo import ZOO, build

SMALLER = {"layers": 3, "hidden": 48, "mlp": 56, "heads": 3, "kv_groups": 3, "head_dim": 8}
ENCODER = {"layers": 3, "hidden": 24, "mlp": 56, "heads": 6, "kv_groups": 6, "head_dim": 4}


def smaller(config: Any, seed: int = 4, **sizes: int) -> tuple[Family, Keep]:
    """A random cut along every axis but the vocabulary, or to the given sizes."""
    family = family_of(config)
    old = family.shape_of(config)
    wanted = sizes or {**(ENCODER if family.hidden_is_heads else SMALLER)}
    if old.experts and not sizes:
        wanted["experts"] = 3
    new = old.with_sizes(**wanted)
    keep = random_keep(seed, old, new, family.turning(config), family.pinned)
    return family, replace(keep, vocabulary=None)


def load(folder: Path, family: Family) -> Any:
    """By plain transformers, in the type of the files."""
    model, told = getattr(transformers, family.model).from_pretrained(
        folder, dtype="auto", output_loading_info=True
    )
    assert not any(told.values()), told
    return model


def same_model(found: Any, wanted: Any) -> None:
    """To the bit."""
    ours, theirs = found.state_dict(), wanted.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=["32 bits", "16 bits"])
@pytest.mark.parametrize("name", list(ZOO))
def test_on_disk_as_in_memory(name: str, kind: torch.dtype, tmp_path: Path) -> None:
    big = build(name).to(kind)
    family, keep = smaller(big.config)
    big.save_pretrained(tmp_path / "big")
    out = cut_folder(tmp_path / "big", tmp_path / "cut", family, keep, shard_bytes=20_000)
    assert len(list(out.glob("*.safetensors"))) > 1
    wanted = cut_model(big, family, keep)
    wanted.save_pretrained(tmp_path / "wanted")
    same_model(load(out, family), wanted)
    assert (out / "config.json").read_bytes() == (tmp_path / "wanted/config.json").read_bytes()


@pytest.fixture
def sharded(make_llama: Callable[..., Path], tmp_path: Path) -> Path:
    """The folder of a tiny Llama in bf16, in shards, its norms in fp32."""
    folder = make_llama(tmp_path / "single", num_hidden_layers=3)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    for label, parameter in model.named_parameters():
        if "norm" in label:
            parameter.data = torch.rand(len(parameter)) + 0.5
    model.save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "sharded")
    shutil.rmtree(folder)
    return tmp_path / "sharded"


def cut_of(folder: Path) -> tuple[Family, Keep]:
    config = transformers.AutoConfig.from_pretrained(folder)
    return smaller(config, layers=2, hidden=40, mlp=56, heads=2, kv_groups=1)


def read(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, by safetensors."""
    return {name: part for file in folder.glob("*.safetensors") for name, part in
            load_file(file).items()}  # fmt: skip


def test_shards_hold_what_the_index_says(sharded: Path, tmp_path: Path) -> None:
    assert len(list(sharded.glob("*.safetensors"))) > 3
    family, keep = cut_of(sharded)
    one = cut_folder(sharded, tmp_path / "one", family, keep)
    many = cut_folder(sharded, tmp_path / "many", family, keep, shard_bytes=30_000)
    assert [file.name for file in one.glob("*.safetensors*")] == ["model.safetensors"]
    files = sorted(file.name for file in many.glob("*.safetensors"))
    count = len(files)
    assert count > 1
    assert files == [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    index = json.loads((many / "model.safetensors.index.json").read_text())
    for file in files:
        named = [name for name, place in index["weight_map"].items() if place == file]
        with safe_open(many / file, framework="pt") as opened:
            assert sorted(opened.keys()) == sorted(named)
            assert opened.metadata() == {"format": "pt"}
        tensors = load_file(many / file).values()
        assert len(tensors) == 1 or sum(each.nbytes for each in tensors) <= 30_000
    tensors = read(one)
    assert index["metadata"]["total_size"] == sum(each.nbytes for each in tensors.values())
    assert index["metadata"]["total_parameters"] == sum(each.numel() for each in tensors.values())
    assert read(many).keys() == tensors.keys() == index["weight_map"].keys()
    assert all(torch.equal(tensors[name], part) for name, part in read(many).items())


def test_every_tensor_keeps_its_type_and_stands_aligned(sharded: Path, tmp_path: Path) -> None:
    family, keep = cut_of(sharded)
    keep = replace(keep, mlp=keep.mlp[:, :55], hidden=keep.hidden[:38])  # odd sizes
    out = cut_folder(sharded, tmp_path / "out", family, keep)
    for name, part in read(out).items():
        assert part.dtype == (torch.float32 if "norm" in name else torch.bfloat16)
    told = stored_tensors(out)
    assert all(tensor.start % tensor.kind.itemsize == 0 for tensor in told.values())


def test_what_speaks_and_reads_is_copied(sharded: Path, tmp_path: Path) -> None:
    family, keep = cut_of(sharded)
    out = cut_folder(sharded, tmp_path / "out", family, keep)
    for name in (
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ):
        assert (out / name).read_bytes() == (sharded / name).read_bytes()
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_cut_vocabulary_takes_its_tokenizer_and_new_ids(sharded: Path, tmp_path: Path) -> None:
    family, keep = cut_of(sharded)
    tokenizer = AutoTokenizer.from_pretrained(sharded)
    used = [tokenizer("the pump is leaking")["input_ids"]]
    named = {0, 1, 2}
    kept = plan_vocabulary(tokenizer, used, rows=keep.old.vocabulary, named=named).keep
    keep = replace(keep, vocabulary=kept)
    with pytest.raises(OptionError, match="needs its tokenizer"):
        cut_folder(sharded, tmp_path / "out", family, keep)
    small = rebuild_tokenizer(tokenizer, kept, rows=keep.old.vocabulary)
    out = cut_folder(sharded, tmp_path / "out", family, keep, tokenizer=small)
    whole = cut_folder(sharded, tmp_path / "whole", family, replace(keep, vocabulary=None))
    model = load(out, family)
    assert model.config.vocab_size == len(kept) < keep.old.vocabulary
    for config in (model.config, model.generation_config):
        assert kept[config.eos_token_id] == 1
    text = "the pump is"
    ids = torch.tensor([AutoTokenizer.from_pretrained(out)(text)["input_ids"]])
    old_ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        found, wanted = model(ids).logits, load(whole, family)(old_ids).logits
    assert torch.equal(found, wanted[..., kept])


def test_what_transformers_does_not_load_goes(
    make_llama: Callable[..., Path], tmp_path: Path
) -> None:
    """A head beside a tied embedding, and RoPE's rates in files of old."""
    folder = make_llama(tmp_path / "tied", tie_word_embeddings=True)
    family, keep = cut_of(folder)
    plain = cut_folder(folder, tmp_path / "plain", family, keep)
    tensors = read(folder)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    found = cut_folder(folder, tmp_path / "found", family, keep)
    same = (plain / "model.safetensors").read_bytes()
    assert (found / "model.safetensors").read_bytes() == same


# One tensor at a time


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_stored_tensor_is_sliced_as_torch_slices(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("stored") / "model.safetensors"
    sizes = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    kind = data.draw(st.sampled_from(list(stored.KINDS.values())))
    save_file({"before": torch.ones(3), "it": torch.randn(sizes).to(kind)}, file)
    plain = load_file(file)["it"]
    lazy: Any = stored_tensors(file.parent)["it"]
    if len(sizes) == 3 and data.draw(st.booleans()):
        place = data.draw(st.integers(0, sizes[0] - 1))
        plain, lazy = plain[place], lazy[place]
    for number in data.draw(st.lists(st.integers(0, plain.dim() - 1), max_size=4)):
        if not plain.shape[number]:
            continue
        places = st.integers(0, plain.shape[number] - 1)
        index = torch.tensor(data.draw(st.lists(places, max_size=8)), dtype=torch.long)
        plain, lazy = plain.index_select(number, index), lazy.index_select(number, index)
    assert lazy.shape == plain.shape
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "BLOCK_BYTES", data.draw(st.integers(1, 100)))
        found = lazy.contiguous()
    assert found.dtype == plain.dtype
    assert torch.equal(found, plain)


def test_a_part_is_gone_before_the_next_is_read(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Any] = []

    def watched(*given: Any) -> Any:
        for name, part in cut_tensors(*given):
            held.append(weakref.ref(part))
            yield name, part
            del part
            assert not any(each() is not None for each in held), name

    cut_tensors = stream.cut_tensors
    monkeypatch.setattr(stream, "cut_tensors", watched)
    family, keep = cut_of(sharded)
    cut_folder(sharded, tmp_path / "out", family, keep, shard_bytes=30_000)
    assert len(held) == 3 + 9 * 2


def test_blocks_are_small_and_what_goes_is_not_read(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[int] = []

    def watched(tensor: StoredTensor, file: Any, room: torch.Tensor, rows: Any) -> Any:
        assert room.nbytes <= 1000
        blocks.append(int(rows.max() + 1 - rows.min()) * tensor._row_bytes)
        return read_rows(tensor, file, room, rows)

    read_rows = StoredTensor._read
    monkeypatch.setattr(StoredTensor, "_read", watched)
    monkeypatch.setattr(stored, "BLOCK_BYTES", 1000)
    family, keep = cut_of(sharded)
    cut_folder(sharded, tmp_path / "out", family, keep)
    tensors = read(sharded)
    gone = ({0, 1, 2} - set(keep.layers.tolist())).pop()
    stays = [part for name, part in tensors.items() if f"layers.{gone}." not in name]
    assert sum(blocks) <= sum(each.nbytes for each in stays)


# Bad input


def second(folder: Path) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[1]


def missing(folder: Path) -> None:
    second(folder).unlink()


def cut_short(folder: Path) -> None:
    os.truncate(second(folder), 500)


def no_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()


def broken_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("[]")


def index_to_elsewhere(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.norm.weight"] = "../../somewhere.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def changed(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = read(folder)
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return spoil


def without_a_norm(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.layers.1.input_layernorm.weight"]


def without_a_head(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["lm_head.weight"]


def too_short(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"] = torch.ones(63)


def of_eight_bits(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"] = torch.ones(64, dtype=torch.int8)


def with_more(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.extra.weight"] = torch.ones(64)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, r"model-00002-of-\d+\.safetensors is missing"),
        (cut_short, r"model-00002-of-\d+\.safetensors cannot be read"),
        (no_index, r"neither model\.safetensors nor model\.safetensors\.index\.json"),
        (broken_index, r"index\.json cannot be read"),
        (index_to_elsewhere, r"names a file elsewhere"),
        (changed(without_a_norm), r"model\.layers\.1\.input_layernorm\.weight among what is m"),
        (changed(without_a_head), r"lm_head\.weight among what is missing"),
        (changed(too_short), r"model\.norm\.weight is 63, by config\.json 64"),
        (changed(of_eight_bits), r"model\.norm\.weight is of the type I8"),
        (changed(with_more), r"'model\.layers\.1\.extra\.weight' that the family 'llama'"),
    ],
)
def test_a_bad_source_is_one_line_and_leaves_nothing(
    sharded: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    family, keep = cut_of(sharded)
    spoil(sharded)
    with pytest.raises(TeacherError, match=message) as error:
        cut_folder(sharded, tmp_path / "out", family, keep)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [sharded]


def test_a_mixture_without_one_of_its_experts_is_refused(tmp_path: Path) -> None:
    build("mixtral").save_pretrained(tmp_path / "big")
    family, keep = smaller(transformers.AutoConfig.from_pretrained(tmp_path / "big"))
    tensors = load_file(tmp_path / "big/model.safetensors")
    del tensors["model.layers.0.block_sparse_moe.experts.5.w2.weight"]
    save_file(tensors, tmp_path / "big/model.safetensors", {"format": "pt"})
    with pytest.raises(TeacherError, match=r"its files hold [\d,]+ of [\d,]+ parameters\."):
        cut_folder(tmp_path / "big", tmp_path / "out", family, keep)


@pytest.mark.parametrize("lost", ["cut short", "gone"])
def test_a_source_that_breaks_on_the_way_leaves_nothing(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    last = max(sharded.glob("*.safetensors"))
    write = stream._write_shard

    def spoiled(*given: Any) -> None:
        if lost == "gone":
            last.unlink(missing_ok=True)
        else:
            os.truncate(last, 1000)
        write(*given)

    monkeypatch.setattr(stream, "_write_shard", spoiled)
    family, keep = cut_of(sharded)
    with pytest.raises(TeacherError, match=last.name):
        cut_folder(sharded, tmp_path / "out", family, keep)
    assert list(tmp_path.iterdir()) == [sharded]


def test_room_is_asked_for_before_anything_is_read(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, keep = cut_of(sharded)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=60_000))
    monkeypatch.setattr(StoredTensor, "contiguous", None)
    with pytest.raises(NoSpace):
        cut_folder(sharded, tmp_path / "out", family, keep)
    assert list(tmp_path.iterdir()) == [sharded]


def test_places_and_shapes_that_do_not_fit_are_refused(sharded: Path, tmp_path: Path) -> None:
    family, keep = cut_of(sharded)
    (sharded / ".flyweight").touch()  # ours, so a folder that could be replaced
    with pytest.raises(FolderError, match="which is read"):
        cut_folder(sharded, sharded, family, keep)
    with pytest.raises(OptionError, match="what stays was chosen in"):
        cut_folder(sharded, tmp_path / "out", family, keep_all(keep.old.with_sizes(layers=9)))
    with pytest.raises(FlyweightError, match="no such folder"):
        cut_folder(tmp_path / "meta", tmp_path / "out", family, keep)
    assert list(tmp_path.iterdir()) == [sharded]


# Completeness: Llama 3.1 8B to Llama 3.2 1B, as their config.json files have them

ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA_31_8B = Shape(
    layers=32, hidden=4096, mlp=14336, heads=32, kv_groups=8, head_dim=128, vocabulary=128256
)
LLAMA_32_1B = Shape(
    layers=16, hidden=2048, mlp=8192, heads=32, kv_groups=8, head_dim=64, vocabulary=128256
)


def config_of(shape: Shape, **changes: Any) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_groups,
        head_dim=shape.head_dim,
        vocab_size=shape.vocabulary,
        rope_parameters=ROPE,
        tie_word_embeddings=False,
        **changes,
    )


def test_at_full_size_the_counts_are_those_that_meta_gives() -> None:
    big = config_of(LLAMA_31_8B)
    family = family_of(big)
    assert family.count(LLAMA_31_8B, big) == 8_030_261_248
    small = family.config_for(big, LLAMA_32_1B, tied=True)
    assert family.shape_of(small) == LLAMA_32_1B
    assert family.count(LLAMA_32_1B, small) == 1_235_814_400


def test_from_the_shape_of_llama_8b_to_that_of_llama_1b(
    make_llama: Callable[..., Path], tmp_path: Path
) -> None:
    """All widths a sixteenth; layers, heads and groups as they are. Then llama.cpp's answers."""

    def scaled(shape: Shape) -> Shape:
        return replace(
            shape,
            hidden=shape.hidden // 16,
            mlp=shape.mlp // 16,
            head_dim=shape.head_dim // 16,
            vocabulary=304,
        )

    tokenizer = AutoTokenizer.from_pretrained(make_llama(tmp_path / "words"))
    config = config_of(
        scaled(LLAMA_31_8B), initializer_range=0.1, bos_token_id=0, eos_token_id=1, pad_token_id=2
    )
    torch.manual_seed(0)
    big = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    big.save_pretrained(tmp_path / "big", max_shard_size="20MB")
    tokenizer.save_pretrained(tmp_path / "big")
    sizes = scaled(LLAMA_32_1B).as_dict()
    family, keep = smaller(config, **sizes)
    keep = replace(keep, tied=True)
    out = cut_folder(tmp_path / "big", tmp_path / "out", family, keep, shard_bytes=4_000_000)

    model = load(out, family)
    assert type(model) is LlamaForCausalLM
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert family.shape_of(model.config) == scaled(LLAMA_32_1B)
    same_model(model, cut_model(big, family, keep))
    report = pack_checkpoint(out, [16], family.gguf, max_tokens=8)
    assert report.parity.equal + len(report.parity.near_ties) == report.parity.prompts
