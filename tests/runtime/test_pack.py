"""The verb: proven files beside the checkpoint, or none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from flyweight.anatomy.gguf import LLAMA
from flyweight.errors import OptionError, ParityError, TeacherError
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.pack import pack, pack_checkpoint


@pytest.fixture
def checkpoint(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def test_pack_writes_what_is_asked_for(checkpoint: Path) -> None:
    before = {path.name for path in checkpoint.iterdir()}
    assert pack(checkpoint, bits=[8, 4]) == checkpoint
    assert {path.name for path in checkpoint.iterdir()} - before == {GGUF_NAMES[8], GGUF_NAMES[4]}
    pack(checkpoint)
    assert {path.name for path in checkpoint.iterdir()} - before == set(GGUF_NAMES.values())
    for name in GGUF_NAMES.values():
        with LlamaEngine(checkpoint / name, context=64) as engine:
            assert len(engine.generate([0, 9, 8], 4).ids) == 4


def test_a_file_that_disagrees_is_not_written(checkpoint: Path) -> None:
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    wrong = replace(LLAMA, interleaved={})
    with pytest.raises(ParityError, match="differ from transformers"):
        pack_checkpoint(checkpoint, [8], wrong)
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before


def test_the_report_lists_prompts_given(checkpoint: Path, prompts: list[list[int]]) -> None:
    report = pack_checkpoint(checkpoint, [16], LLAMA, prompts[:5], max_tokens=4)
    assert report.parity.prompts == 5
    assert report.files == {16: checkpoint / GGUF_NAMES[16]}
    assert report.written[16].bytes == report.files[16].stat().st_size


def test_bad_input(checkpoint: Path, tmp_path: Path) -> None:
    for bits in ([32], [16, 5]):
        with pytest.raises(OptionError, match="choose from 16, 8, 4"):
            pack(checkpoint, bits=bits)
    with pytest.raises(TeacherError, match=r"no config\.json"):
        pack(tmp_path)
