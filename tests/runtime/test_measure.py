"""Measured in a child: the answers are the same as here, and what goes wrong there comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flyweight.errors import EngineError
from flyweight.runtime.child import percentile
from flyweight.runtime.llama import Generation, LlamaEngine
from flyweight.runtime.measure import measure


def test_answers_and_figures(
    tiny_files: dict[int, Path],
    prompts: list[list[int]],
    alike: Callable[[Generation, list[int]], bool],
) -> None:
    seen: list[int] = []
    found = measure(
        tiny_files[16], prompts, 12, timed=20, streams=4, on_answer=lambda: seen.append(1)
    )
    with LlamaEngine(tiny_files[16], context=64) as engine:
        here = [engine.generate(prompt, 12, top=2) for prompt in prompts]
    assert found.answers[:20] == [answer.ids for answer in here[:20]]
    assert all(alike(answer, ids) for answer, ids in zip(here, found.answers, strict=True))
    assert found.stop_ids == [None] * len(prompts)
    assert (found.timed, len(seen)) == (20, len(prompts))
    assert 0 < found.latency_p50 <= found.latency_p95 < 5
    assert found.decode_tokens_per_second > 11 / found.latency_p95, (
        "an answer is more than decoding"
    )
    assert found.prompt_tokens_per_second > 0
    assert found.peak_memory_bytes > found.baseline_bytes > 2**20


def test_stop_ids(tiny_files: dict[int, Path], prompts: list[list[int]]) -> None:
    whole = measure(tiny_files[8], prompts[:2], 8).answers
    stop = whole[0][3]
    found = measure(tiny_files[8], prompts[:2], 8, [stop])
    assert found.answers[0] == whole[0][: whole[0].index(stop)]
    assert found.stop_ids[0] == stop


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(i) for i in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 1.0)] == [50.0, 95.0, 100.0]
    assert percentile([3.0], 0.5) == 3.0


def test_what_goes_wrong_in_the_child_is_an_error_here(
    tiny_files: dict[int, Path], tmp_path: Path, prompts: list[list[int]]
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_files[8].read_bytes()[:5000])
    with pytest.raises(EngineError, match=r"broken\.gguf: llama\.cpp does not load"):
        measure(broken, prompts, 4)
    with pytest.raises(EngineError, match="not done after"):
        measure(tiny_files[16], prompts * 50, 40, timeout=0.3)
    with pytest.raises(EngineError, match="no prompts"):
        measure(tiny_files[16], [], 4)


def test_a_child_that_dies_is_an_error(
    tiny_files: dict[int, Path], monkeypatch: pytest.MonkeyPatch, prompts: list[list[int]]
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # no interpreter starts with this
    with pytest.raises(EngineError, match=r"the engine died \(status 1\)"):
        measure(tiny_files[16], prompts, 4)
