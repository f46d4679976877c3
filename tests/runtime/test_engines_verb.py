"""The engines that are installed are measured, and the fastest one is known afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flyweight import engines
from flyweight.anatomy.gguf import LLAMA
from flyweight.errors import FolderError, OptionError
from flyweight.folder import GGUF_NAMES, sha256_of
from flyweight.runtime import choice, engine_speed
from flyweight.runtime.bandwidth import read_speed
from flyweight.runtime.choice import ENGINES, Found, Row, best, recall, remember, winner
from flyweight.runtime.engine_speed import Sizes, race
from flyweight.runtime.gguf import write_gguf


@pytest.fixture
def folder(
    make_llama: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A model that OpenVINO does not take, with a file of 8 bits; two engines, one round."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    folder = make_llama(tmp_path / "model", rope_parameters=rope)
    write_gguf(folder, folder / GGUF_NAMES[8], 8, LLAMA)
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engine_speed, "ROUNDS", 1)
    monkeypatch.delitem(ENGINES, "torch")
    return folder


def test_what_runs_is_measured_what_does_not_is_said_and_all_of_it_kept(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino_genai")
    identity = sha256_of(folder / GGUF_NAMES[8])
    assert winner(identity, "stream") is None
    told = engines(folder)
    said = capsys.readouterr().out
    llama, openvino = told["rows"]
    assert (llama["engine"], llama["bits"], llama["failed"]) == ("llama.cpp", 8, "")
    assert llama["reads"] < (folder / GGUF_NAMES[8]).stat().st_size
    speeds = [*llama["stream"], *llama["prompt"], *llama["batches"][8], *llama["batches"][16]]
    assert len(speeds) == 4
    assert min(speeds) > 0
    assert min(llama["memory"], llama["first"][0], llama["limit"][0]) > 0
    assert "rope_freqs.weight" in openvino["failed"]
    assert "openvino did not run: OpenVINO's reader does not know rope_freqs.weight" in said
    assert {winner(identity, work) for work in choice.WORKS} == {"llama.cpp"}

    monkeypatch.setattr(engine_speed, "race", lambda *_, **__: pytest.fail("known already"))
    assert engines(folder) == told
    monkeypatch.setattr(engine_speed, "race", lambda *_, **__: [Row("llama.cpp", 8, stream=[3.0])])
    assert engines(folder, again=True)["rows"][0]["stream"] == [3.0]

    monkeypatch.setattr(choice, "processor", lambda: "another one")
    assert winner(identity, "stream") is None


def test_folders_and_bits_that_are_not_there(folder: Path, tiny_llama: Path) -> None:
    with pytest.raises(OptionError, match=r"--bits is 4: .* has 8"):
        engines(folder, bits=4)
    with pytest.raises(FolderError, match=r"has no GGUF file\. Make them: flyweight pack"):
        engines(tiny_llama)


def test_a_record_that_is_damaged_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path))
    remember("a", Found("now", [Row("llama.cpp", 4, batches={8: [1.0]})], {"batch": "llama.cpp"}))
    known = recall("a")
    assert known is not None
    assert known.rows[0].batches == {8: [1.0]}
    assert (winner("a", "batch"), winner("a", "stream"), winner("b", "batch")) == (
        "llama.cpp", None, None,
    )  # fmt: skip
    [file] = (tmp_path / "engines").iterdir()
    for damage in ("{", "[]", '{"format": 1}'):
        file.write_text(damage)
        with pytest.raises(OptionError, match=r"no record of engines .* Remove it"):
            winner("a", "batch")


def rows(**speeds: list[float]) -> list[Row]:
    return [Row(name.replace("_", "."), 4, stream=each) for name, each in speeds.items()]


def test_the_standard_engine_stays_unless_another_is_faster_in_every_round() -> None:
    assert best(rows(llama_cpp=[5, 6, 7], torch=[6, 7, 8])) == {"stream": "torch"}
    assert best(rows(llama_cpp=[5, 6, 7], torch=[9, 9, 6])) == {"stream": "llama.cpp"}
    assert best(rows(openvino=[5, 6, 7], torch=[9, 9, 6])) == {"stream": "torch"}
    assert best([Row("torch", 16, failed="no")]) == {}


def test_a_file_that_is_damaged_is_a_row_that_says_so(
    tiny_files: dict[int, Path], tmp_path: Path
) -> None:
    (tmp_path / "cut.gguf").write_bytes(tiny_files[8].read_bytes()[:-5000])
    done: list[int] = []
    [row] = race(
        {"llama.cpp": (tmp_path / "cut.gguf", 8)},
        Sizes.fitting(64),
        rounds=2,
        on_done=lambda: done.append(1),
    )
    assert row.failed.startswith("cannot be read")
    assert (row.speeds("batch"), len(done)) == ([], 2)


def test_sizes_fit_the_context() -> None:
    for context in (16, 64, 300, 5000):
        sizes = Sizes.fitting(context)
        assert sizes.context <= context
        assert sizes.short + sizes.written <= sizes.context
        assert min(sizes.short, sizes.written, sizes.prompt) > 0


def test_reading_is_as_fast_as_a_sum_in_numpy_shows_it_can_be() -> None:
    size = 32 * 10**6
    numbers = np.ones(size // 8)
    taken = []
    for _ in range(10):
        started = time.perf_counter()
        numbers.sum()
        taken.append(time.perf_counter() - started)
    assert 0.5 * size / min(taken) < read_speed(size) < 1e13
