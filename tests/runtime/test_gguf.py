"""What is in a written file, read back with the gguf package's own reader."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file, save_file

from flyweight.anatomy.gguf import LLAMA, interleave
from flyweight.errors import EngineError, FolderError, NoSpace, OptionError, TeacherError
from flyweight.runtime.gguf import write_gguf

HEADS = {"attn_q": ("q_proj", 4), "attn_k": ("k_proj", 2)}


def read(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    return {
        tensor.name: (
            GGMLQuantizationType(tensor.tensor_type).name,
            dequantize(tensor.data, tensor.tensor_type),
        )
        for tensor in GGUFReader(path).tensors
    }


def test_types_of_each_width(tiny_files: dict[int, Path]) -> None:
    matrices = {16: "F16", 8: "Q8_0", 5: "Q5_0", 4: "Q4_0"}
    for bits, path in tiny_files.items():
        kinds = {name: kind for name, (kind, _) in read(path).items()}
        assert {kind for name, kind in kinds.items() if "norm" in name} == {"F32"}
        high = matrices[max(bits, 8)]
        assert kinds.pop("token_embd.weight") == kinds.pop("output.weight") == high
        assert {k for name, k in kinds.items() if "norm" not in name} == {matrices[bits]}


def test_weights_are_the_checkpoints_own(tiny_llama: Path, tiny_files: dict[int, Path]) -> None:
    checkpoint = load_file(tiny_llama / "model.safetensors")
    # half of the levels are below 0, one less above; a scale may be 18 % coarser or finer
    for bits, step in ((16, 0), (8, 1 / 120), (5, 0.19), (4, 0.25)):
        written = read(tiny_files[bits])
        for name, (parameter, heads) in HEADS.items():
            weight = checkpoint[f"model.layers.1.self_attn.{parameter}.weight"].float()
            wanted = interleave(weight, heads).numpy()
            found = written[f"blk.1.{name}.weight"][1]
            # half a step of the block's scale, and what F16 (11 bits) takes from that
            largest = np.abs(wanted.reshape(-1, 32)).max(1)[:, None]
            assert (np.abs(found - wanted).reshape(-1, 32) <= (step + 2**-11) * largest).all()


def test_rows_that_fit_no_block_stay_at_16_bits_and_are_counted(
    make_llama: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_llama(tmp_path / "odd", intermediate_size=80)
    report = write_gguf(folder, tmp_path / "odd.gguf", 4, LLAMA)
    assert report.kept_at_16 == ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]
    kinds = {name: kind for name, (kind, _) in read(tmp_path / "odd.gguf").items()}
    assert [name for name, kind in kinds.items() if kind == "F16"] == report.kept_at_16
    assert report.bytes == (tmp_path / "odd.gguf").stat().st_size


def test_shards_make_the_same_file(
    tiny_llama: Path, tiny_files: dict[int, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_llama, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards: dict[str, dict[str, torch.Tensor]] = {"a.safetensors": {}, "b.safetensors": {}}
    for place, name in enumerate(sorted(tensors)):
        shards[f"{'ab'[place % 2]}.safetensors"][name] = tensors[name]
    for file, part in shards.items():
        save_file(part, folder / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    write_gguf(folder, tmp_path / "sharded.gguf", 8, LLAMA)
    whole, sharded = read(tiny_files[8]), read(tmp_path / "sharded.gguf")
    assert whole.keys() == sharded.keys()
    assert all(np.array_equal(whole[name][1], sharded[name][1]) for name in whole)


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_what_was_there(tiny_llama: Path, tmp_path: Path) -> None:
    destination = tmp_path / "model.gguf"
    destination.write_text("the old one")
    with no_file_longer_than(50_000), pytest.raises(NoSpace, match="no room"):
        write_gguf(tiny_llama, destination, 16, LLAMA)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    assert destination.read_text() == "the old one"


def test_bad_input_is_an_error_and_leaves_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    destination = tmp_path / "out" / "model.gguf"
    with pytest.raises(FolderError, match="cannot be written"):
        write_gguf(tiny_llama, destination, 8, LLAMA)
    destination.parent.mkdir()
    with pytest.raises(OptionError, match="6 is not one of 16, 8, 5, 4"):
        write_gguf(tiny_llama, destination, 6, LLAMA)
    with pytest.raises(TeacherError, match=r"config\.json"):
        write_gguf(tmp_path, destination, 8, LLAMA)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_llama, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(TeacherError, match="safetensors cannot be read"):
        write_gguf(broken, destination, 8, LLAMA)
    assert list(destination.parent.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_weights_beyond_16_bits_are_refused(tiny_llama: Path, tmp_path: Path, value: float) -> None:
    folder = tmp_path / "diverged"
    shutil.copytree(tiny_llama, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, 3] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(EngineError, match="up_proj"):
        write_gguf(folder, tmp_path / "model.gguf", 8, LLAMA)
    assert not (tmp_path / "model.gguf").exists()
