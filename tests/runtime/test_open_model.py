"""Opening a model: nothing that is damaged, another's, or too large gets into this process."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import flyweight.runtime.memory as memory_module
from flyweight.anatomy.gguf import LLAMA
from flyweight.errors import EngineError, FlyweightError, FolderError, OptionError
from flyweight.runtime.choice import Found as Measured
from flyweight.runtime.choice import Work, remember
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.gguf_header import read_header
from flyweight.runtime.memory import available_memory, check_memory, sizes_of
from flyweight.runtime.open_model import find_model, open_model

FILL = """
import sys
from pathlib import Path
from flyweight.runtime.child import memory_of
from flyweight.runtime.llama import LlamaEngine
before = memory_of("VmRSS")
with LlamaEngine(Path(sys.argv[1]), context=int(sys.argv[2]), streams=int(sys.argv[3])) as engine:
    engine.generate([5] * (engine.context - 8), 8)
print(memory_of("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def packed(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_llama(tmp_path_factory.mktemp("packed") / "model")
    for bits in (16, 8):
        name = {16: "model-f16.gguf", 8: "model-q8_0.gguf"}[bits]
        write_gguf(folder, folder / name, bits, LLAMA)
    return folder


def test_a_folder_opens_with_its_smallest_file(packed: Path) -> None:
    engine, found = open_model(packed)
    with engine:
        assert (found.bits, engine.context) == (8, 512)  # what the model was made for
        assert engine.generate(found.tokenizer()("the pump")["input_ids"], 4).written > 0
    with pytest.raises(OptionError, match=r"--bits is 4: .* has 16, 8"):
        find_model(packed, 4)
    with pytest.raises(OptionError, match="was made for 512 tokens, not for 513"):
        open_model(packed, context=513)
    with pytest.raises(OptionError, match="kv_bits is 5"):
        open_model(packed, kv_bits=5)
    with pytest.raises(OptionError, match="16 dimensions"):
        open_model(packed, kv_bits=8)


def test_the_engine_that_was_found_fastest_opens_it_where_it_can(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path))
    found = find_model(packed)
    fastest: dict[Work, str] = {"batch": "torch", "stream": "llama.cpp"}
    remember(found.sha256, Measured("2026-01-01T00:00:00+00:00", [], fastest))
    for work, needs, name in (
        ("batch", (), "torch"),
        ("batch", ("state",), "llama.cpp"),
        ("stream", (), "llama.cpp"),
        ("prompt", (), "llama.cpp"),
    ):
        engine, _ = open_model(packed, work=work, needs=needs, threads=1)
        with engine:
            assert engine.name == name
    with pytest.raises(OptionError, match="'other' is not one of"):
        open_model(packed, engine="other")


def test_a_folder_without_files_says_how_to_make_them(tiny_llama: Path) -> None:
    with pytest.raises(FolderError, match="flyweight pack"):
        find_model(tiny_llama)


def test_a_file_of_another_tokenizer_is_refused(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(packed, folder)
    told = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = told["model"]["vocab"]
    first, second = list(vocabulary)[60:62]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (folder / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(EngineError, match="2 of its tokens are not the tokenizer's"):
        find_model(folder)


def is_refused(path: Path) -> bool:
    """Whether it is, with an error of the tree and in one line; any other one goes through."""
    try:
        find_model(path)
    except FlyweightError as error:
        return "\n" not in str(error) or pytest.fail(str(error))
    return False


def test_whatever_a_file_holds_this_process_lives(packed: Path, tmp_path: Path) -> None:
    good = (packed / "model-q8_0.gguf").read_bytes()
    draw = random.Random(0)
    refused = 0
    for number in range(8):
        changed = bytearray(good)
        for _ in range(draw.choice((1, 8, 64))):
            place = draw.randrange(len(changed) if number % 2 else 3000)
            changed[place] = draw.randrange(256)
        if number == 6:
            changed = changed[: draw.randrange(len(changed))]
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(changed)
        refused += is_refused(path)
    assert refused >= 4


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 16, b"PK" * 40])
def test_what_is_no_gguf_file_is_refused_here(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"odd\.gguf"):
        find_model(path)


def test_missing_weights_are_noticed_before_anything_is_loaded(
    packed: Path, tmp_path: Path
) -> None:
    good = (packed / "model-q8_0.gguf").read_bytes()
    path = tmp_path / "short.gguf"
    path.write_bytes(good[:-64])
    with pytest.raises(EngineError, match=r"short\.gguf.* missing"):
        read_header(path)


def test_an_encoder_s_header_is_no_model_that_writes(packed: Path, tmp_path: Path) -> None:
    good = (packed / "model-q8_0.gguf").read_bytes()
    path = tmp_path / "other.gguf"
    path.write_bytes(good.replace(b"llama.context_length", b"llamb.context_length"))
    with pytest.raises(EngineError, match="says nothing of its context_length"):
        sizes_of(path)


@pytest.mark.parametrize(("context", "streams"), [(512, 1), (4096, 2)])
def test_the_memory_of_a_context_is_foretold(
    make_llama: Callable[..., Path], tmp_path: Path, context: int, streams: int
) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6}
    folder = make_llama(tmp_path / "model", **sizes, max_position_embeddings=4096)
    write_gguf(folder, tmp_path / "model.gguf", 8, LLAMA)
    command = [sys.executable, "-c", FILL, str(tmp_path / "model.gguf"), str(context), str(streams)]
    took = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert sizes_of(tmp_path / "model.gguf").memory(context, streams) == pytest.approx(
        took, rel=0.1
    )


def test_a_context_that_does_not_fit_names_the_one_that_does(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = packed / "model-q8_0.gguf"
    sizes = sizes_of(gguf)
    free = sizes.memory(256)
    monkeypatch.setattr(memory_module, "available_memory", lambda: free)
    with pytest.raises(EngineError, match="a context of 256 would fit"):
        check_memory(gguf, sizes, 512, 1, 16)
    check_memory(gguf, sizes, sizes.longest(free), 1, 16)
    monkeypatch.setattr(memory_module, "available_memory", lambda: 1000)
    with pytest.raises(EngineError, match="not even the shortest"):
        check_memory(gguf, sizes, 256, 1, 16)


def test_free_memory_is_what_the_system_says() -> None:
    free = available_memory()
    assert free is None or 2**20 < free < 2**50
