"""The verb: proven files beside the checkpoint, rounded for a task where one is given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

from flyweight import pack
from flyweight.checkpoint import open_checkpoint
from flyweight.errors import OptionError, TeacherError
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.llama import LlamaEngine


@pytest.fixture
def checkpoint(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_it_writes_what_is_asked_for(checkpoint: Path) -> None:
    before = names(checkpoint)
    assert pack(checkpoint, bits=[8, 4]) == checkpoint
    assert names(checkpoint) - before == {GGUF_NAMES[8], GGUF_NAMES[4]}
    pack(checkpoint)
    assert names(checkpoint) - before == set(GGUF_NAMES.values())
    sizes = [(checkpoint / name).stat().st_size for name in GGUF_NAMES.values()]
    assert sizes == sorted(sizes, reverse=True)
    for name in GGUF_NAMES.values():
        with LlamaEngine(checkpoint / name, context=64) as engine:
            assert len(engine.generate([0, 9, 8], 4).ids) == 4


def test_weights_are_rounded_for_the_train_items(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the first block's keys say of the train items is less wrong than without them."""
    items = [
        {"prompt": f"{i} {i * i}", "answer": "x" * (i % 5), "split": "train"} for i in range(40)
    ]
    others = [{"prompt": f"{name} 7", "answer": "y", "split": name} for name in ("dev", "test")]
    task = tmp_path / "task.jsonl"
    task.write_text("".join(json.dumps(item) + "\n" for item in items + others))
    source = open_checkpoint(checkpoint)
    model, tokenizer = source.model(), source.tokenizer()
    seen = np.unique([i for item in items for i in tokenizer(item["prompt"])["input_ids"]])
    embedded = model.model.embed_tokens.weight.detach()[seen]
    inputs = model.model.layers[0].input_layernorm(embedded).detach().numpy()

    def values() -> np.ndarray:
        tensors = {each.name: each for each in GGUFReader(checkpoint / GGUF_NAMES[4]).tensors}
        found = tensors["blk.0.attn_v.weight"]
        return dequantize(found.data, found.tensor_type)

    exact = model.model.layers[0].self_attn.v_proj.weight.detach().numpy()
    wrong = []
    for data in (None, task):
        pack(checkpoint, bits=[4], data=data)
        wrong.append(np.square(inputs @ (values() - exact).T).sum())
    assert wrong[1] < 0.6 * wrong[0]
    assert "rounded for 40 train items" in " ".join(capsys.readouterr().err.split())


def test_bad_input(checkpoint: Path, tmp_path: Path) -> None:
    for bits in ([32], [16, 6]):
        with pytest.raises(OptionError, match="choose from 16, 8, 5, 4"):
            pack(checkpoint, bits=bits)
    with pytest.raises(TeacherError, match=r"no config\.json"):
        pack(tmp_path)
