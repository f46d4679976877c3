"""The engine: what it answers, where it ends, and that bad input never takes the process along."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from flyweight.anatomy.gguf import LLAMA
from flyweight.errors import EngineError, OptionError
from flyweight.runtime.engine import Generation, Piece
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.threads import SMALL_FILE, default_threads


@pytest.fixture(scope="module")
def engine(tiny_files: dict[int, Path]) -> Iterator[LlamaEngine]:
    with LlamaEngine(tiny_files[16], context=256, streams=3) as engine:
        yield engine


def test_text_and_log_probabilities_are_those_of_transformers(
    engine: LlamaEngine, tiny_llama: Path, prompts: list[list[int]]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    answer = engine.generate(prompts[0], 12, top=2)
    assert len(answer.ids) == answer.written == 12
    assert answer.stop_id is None
    assert answer.text == tokenizer.decode(answer.ids, skip_special_tokens=True)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompts[0] + answer.ids])).logits[0]
    expected = logits[len(prompts[0]) - 1 : -1].log_softmax(-1)
    assert len(answer.top) == 12
    told = [(position, best) for position, best in enumerate(answer.top) if best]
    assert len(told) > 7  # the others end within a character
    for position, best in told:
        assert [i for i, _ in best] == expected[position].topk(2).indices.tolist()
        for i, probability in best:
            assert probability == pytest.approx(float(expected[position, i]), abs=0.03)


def test_drawn_tokens_follow_the_model_s_probabilities_and_the_seed(
    engine: LlamaEngine, tiny_llama: Path, prompts: list[list[int]]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompts[0]])).logits[0, -1]
    drawn = engine.generate_many(
        [prompts[0]] * 600, 1, temperature=0.5, seeds=range(600)
    )  # an end is drawn as well
    said = [each.stop_id if each.stop_id is not None else each.ids[0] for each in drawn]
    expected = (logits / 0.5).softmax(-1)
    for token in expected.topk(3).indices.tolist():
        share, wanted = said.count(token) / len(said), float(expected[token])
        assert abs(share - wanted) < 4 * (wanted * (1 - wanted) / len(said)) ** 0.5 + 0.01
    [again] = engine.generate_many([prompts[0]], 1, temperature=0.5, seeds=[41])
    assert again.ids == drawn[41].ids


def test_streams_and_streaming_answer_alike(
    engine: LlamaEngine,
    prompts: list[list[int]],
    alike: Callable[[Generation, list[int]], bool],
) -> None:
    alone = [engine.generate(prompt, 10, top=2) for prompt in prompts[:12]]
    done: list[int] = []
    together = engine.generate_many(prompts[:12], 10, on_done=lambda: done.append(1))
    assert all(alike(a, b.ids) for a, b in zip(alone, together, strict=True))
    assert sum(a.ids == b.ids for a, b in zip(alone, together, strict=True)) > 6
    assert len(done) == 12
    for prompt, answer in zip(prompts, alone, strict=False):
        pieces: list[Piece] = []
        streamed = engine.stream(prompt, 10, pieces.append, reuse=False)
        assert "".join(piece.text for piece in pieces) == streamed.text
        assert answer.text.removeprefix(streamed.text).strip("\ufffd") == ""  # half a character
        assert (streamed.written, streamed.stopped) == (10, False)
        assert streamed.seconds > 0


def test_a_stop_id_ends_the_answer_before_it(engine: LlamaEngine, prompts: list[list[int]]) -> None:
    whole = engine.generate(prompts[0], 10)
    stop = whole.ids[4]
    cut = engine.generate(prompts[0], 10, stop_ids=[stop])
    assert cut.ids == whole.ids[: whole.ids.index(stop)]
    assert cut.stop_id == stop
    assert whole.text.startswith(cut.text.rstrip("\ufffd"))


def test_the_end_of_text_token_ends_the_answer(
    make_llama: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_llama(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    head = tensors["lm_head.weight"]
    head[:] = 0
    head[1] = tensors["model.norm.weight"]
    tensors["model.embed_tokens.weight"].abs_()  # so that the end is the likeliest after anything
    for name, tensor in tensors.items():
        if "o_proj" in name or "down_proj" in name:
            tensor[:] = 0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    write_gguf(folder, tmp_path / "model.gguf", 16, LLAMA)
    with LlamaEngine(tmp_path / "model.gguf", context=64) as engine:
        answer = engine.generate([0, 9], 8)
        streamed = engine.stream([0, 9], 8, lambda piece: None)
    assert (answer.ids, answer.stop_id, answer.written, answer.text) == ([], 1, 1, "")
    assert (streamed.text, streamed.stopped, streamed.written) == ("", True, 1)


def test_tokens_of_a_text(engine: LlamaEngine, tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    text = "the pump is hot<|end|> it's 12 bar"
    assert engine.tokenize(text) == tokenizer(text)["input_ids"]
    assert engine.detokenize(engine.tokenize("it's 12 bar")) == "it's 12 bar"


def test_what_does_not_fit_is_refused_and_the_engine_goes_on(engine: LlamaEngine) -> None:
    with pytest.raises(EngineError, match="a prompt of 250 tokens and an answer of 10"):
        engine.generate([7] * 250, 10)
    with pytest.raises(EngineError, match="invalid tokens"):
        engine.generate([304], 4)
    with pytest.raises(OptionError, match="at least one token"):
        engine.generate([], 4)
    with pytest.raises(ZeroDivisionError):
        engine.stream([7] * 9, 4, lambda piece: 1 / 0)
    assert len(engine.generate([7, 8, 9], 4).ids) == 4


def test_bad_files_are_errors(tiny_files: dict[int, Path], tmp_path: Path) -> None:
    good = tiny_files[8].read_bytes()
    bad = {
        "empty": b"",
        "text": b"not a model at all",
        "magic": b"FUGG" + good[4:],
        "version": good[:4] + b"\xff\xff\xff\xff" + good[8:],
        "header": good[:2000],
        "cut": good[: len(good) // 2],
        "short": good[:-64],
    }
    for name, content in bad.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(EngineError, match=rf"{name}\.gguf"):
            LlamaEngine(path, context=64)
    with pytest.raises(EngineError, match="cannot be read"):
        LlamaEngine(tmp_path / "missing.gguf")


def test_signals_stay_pythons_and_a_closed_engine_says_so(tiny_files: dict[int, Path]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    engine = LlamaEngine(tiny_files[8], context=64)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.generate([7], 1)


def test_small_files_get_one_thread() -> None:
    assert default_threads(SMALL_FILE - 1) == 1
    assert default_threads(SMALL_FILE) == len(os.sched_getaffinity(0))
