"""OpenVINO answers as transformers does, or refuses the file."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from flyweight.anatomy.gguf import LLAMA
from flyweight.checkpoint import open_checkpoint
from flyweight.errors import EngineError, MissingExtra, OptionError
from flyweight.runtime.constraint import Constraint
from flyweight.runtime.engine import Engine, Generation, Piece
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.gguf_header import read_header
from flyweight.runtime.gguf_tokens import GgufTokens
from flyweight.runtime.openvino_engine import OpenVinoEngine
from flyweight.runtime.torch_engine import TorchEngine

pytest.importorskip("openvino_genai")


@pytest.fixture(scope="module")
def engine(tiny_files: dict[int, Path]) -> Iterator[Engine]:
    with OpenVinoEngine(tiny_files[16], context=320, streams=4, threads=1, dtype="float32") as made:
        yield made


@pytest.fixture(scope="module")
def in_torch(tiny_llama: Path) -> Iterator[Engine]:
    with TorchEngine(tiny_llama, context=320, streams=3, threads=1) as engine:
        yield engine


def test_it_answers_as_transformers_alone_and_in_batches(
    engine: Engine,
    in_torch: Engine,
    prompts: list[list[int]],
    alike: Callable[[Generation, list[int]], bool],
) -> None:
    given = [*prompts[:20], [0, *range(20, 180)]]
    wanted = [in_torch.generate(prompt, 12, top=2) for prompt in given]
    done: list[int] = []
    together = engine.generate_many(given, 12, on_done=lambda: done.append(1))
    assert len(done) == len(given)
    for prompt, one, other in zip(given, wanted, together, strict=True):
        assert alike(one, other.ids)
        assert alike(one, engine.generate(prompt, 12).ids)
        assert other.text == in_torch.detokenize(other.ids)
    assert sum(a.ids == b.ids for a, b in zip(wanted, together, strict=True)) > 18
    alone = engine.generate(given[-1], 12)
    assert alone.seconds > 0
    assert alone.prompt_seconds > 0
    assert (alone.written, alone.prompt_tokens) == (12, 161)


@pytest.mark.parametrize("kind", ["tied", "qwen3"])
def test_other_shapes_too(
    make_llama: Callable[..., Path],
    prompts: list[list[int]],
    alike: Callable[[Generation, list[int]], bool],
    tmp_path: Path,
    kind: str,
) -> None:
    folder = make_llama(tmp_path / "model", tie_word_embeddings=kind == "tied", head_dim=32)
    if kind == "qwen3":
        sizes = AutoConfig.from_pretrained(folder).to_dict()
        config = Qwen3Config(**{**sizes, "model_type": "qwen3", "architectures": None})
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config)
        for name, weight in model.named_parameters():
            if "norm" in name:
                torch.nn.init.uniform_(weight, 0.5, 1.5)
        model.to(torch.bfloat16).save_pretrained(folder)
    gguf = folder / "model.gguf"
    write_gguf(folder, gguf, 16, open_checkpoint(folder).gguf_map)
    with TorchEngine(folder, context=64, threads=1) as other:
        wanted = [other.generate(prompt, 8, top=2) for prompt in prompts[:10]]
    with OpenVinoEngine(gguf, context=64, threads=1, dtype="float32") as engine:
        for prompt, one in zip(prompts[:10], wanted, strict=True):
            assert alike(one, engine.generate(prompt, 8).ids)


def test_an_answer_ends_where_it_should(engine: Engine, prompts: list[list[int]]) -> None:
    whole = engine.generate(prompts[0], 16)
    cut = engine.generate(prompts[0], 16, stop_ids=[whole.ids[5]])
    place = whole.ids.index(whole.ids[5])
    assert (cut.ids, cut.stop_id, cut.written) == (whole.ids[:place], whole.ids[5], place + 1)
    stop = whole.text[4:6]
    said = engine.generate(prompts[0], 16, stop=[stop])
    assert (said.text, said.stop_id) == (whole.text.partition(stop)[0], None)
    drawn = [engine.generate(prompts[0], 8, temperature=1.0, seed=seed).ids for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_text_comes_in_whole_characters(engine: Engine, prompts: list[list[int]]) -> None:
    for prompt in prompts[:6]:
        pieces: list[Piece] = []
        streamed = engine.stream(prompt, 10, pieces.append)
        assert "".join(piece.text for piece in pieces) == streamed.text
        assert streamed.written == 10
        assert engine.generate(prompt, 10).text.removeprefix(streamed.text).strip("\ufffd") == ""
    with pytest.raises(ZeroDivisionError):
        engine.stream(prompts[0], 200, lambda piece: 1 / 0)
    assert len(engine.generate(prompts[0], 4).ids) == 4


def test_text_is_split_as_by_transformers(engine: Engine, tiny_llama: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(tiny_llama)
    for text in ("the pump, it's 12 bar", "<|user|>hi<|end|> x", " 今天 ½\n\n 7", ""):
        assert engine.tokenize(text, add_special=False) == theirs(text)["input_ids"]
        ids = theirs(text)["input_ids"]
        assert engine.detokenize(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert engine.detokenize(engine.tokenize("½")[:1]) == "\ufffd"


def test_the_header_says_what_the_gguf_package_reads(tiny_files: dict[int, Path]) -> None:
    from gguf import GGUFReader

    for file in tiny_files.values():
        ours, theirs = read_header(file), GGUFReader(file)
        for name, field in theirs.fields.items():
            if not name.startswith("GGUF."):
                assert ours.keys[name] == pytest.approx(field.contents())
        told = {each.name: (each.n_bytes, tuple(reversed(each.shape))) for each in theirs.tensors}
        assert {name: (t.bytes, t.shape) for name, t in ours.tensors.items()} == told
        looked_up = told["token_embd.weight"][0]
        assert ours.read_for_a_token == sum(size for size, _ in told.values()) - looked_up


def test_what_it_would_run_wrongly_is_refused(
    make_llama: Callable[..., Path], tiny_files: dict[int, Path], tmp_path: Path
) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    folder = make_llama(tmp_path / "model", rope_parameters=rope)
    write_gguf(folder, folder / "model.gguf", 16, LLAMA)
    write_gguf(folder, folder / "five.gguf", 5, LLAMA)
    biased = make_llama(tmp_path / "biased", attention_bias=True)
    write_gguf(biased, biased / "model.gguf", 16, LLAMA)
    with pytest.raises(EngineError, match=r"does not know blk\.0\.attn_\w+\.bias"):
        OpenVinoEngine(biased / "model.gguf")
    with pytest.raises(EngineError, match=r"does not know rope_freqs\.weight"):
        OpenVinoEngine(folder / "model.gguf")
    with pytest.raises(EngineError, match="in another type than"):
        OpenVinoEngine(folder / "five.gguf")
    (tmp_path / "cut").write_bytes(tiny_files[16].read_bytes()[:3000])
    (tmp_path / "weights").write_bytes(tiny_files[16].read_bytes()[:-3000])
    (tmp_path / "other").write_bytes(b"PK\x03\x04" * 20)
    for name in ("cut", "other", "absent", "weights"):
        with pytest.raises(EngineError, match=name) as raised:
            OpenVinoEngine(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_what_it_cannot_do_is_said(engine: Engine, prompts: list[list[int]]) -> None:
    assert engine.can == {"stream", "batch"}
    for wish, call in {
        "constrain": lambda: engine.generate([5], 4, constraint=Constraint.regex("a")),
        "log-probabilities": lambda: engine.generate([5], 4, top=1),
        "score": lambda: engine.score([5], [6]),
        "embed": lambda: engine.embed([5]),
    }.items():
        with pytest.raises(EngineError, match=f"openvino cannot .*{wish}"):
            call()
    with pytest.raises(EngineError, match="do not fit a context of 320"):
        engine.generate([7] * 315, 10)
    with pytest.raises(OptionError, match="0 to 303"):
        engine.generate([304], 1)
    assert len(engine.generate(prompts[0], 4).ids) == 4


def test_without_it_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tiny_files: dict[int, Path]
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("openvino"):
            raise ImportError(name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'flyweight\[openvino\]'"):
        OpenVinoEngine(tiny_files[16])


def test_other_tokenizers_are_refused(tiny_files: dict[int, Path]) -> None:
    header = read_header(tiny_files[16])
    header.keys["tokenizer.ggml.pre"] = "nosuch"
    with pytest.raises(EngineError, match="nosuch"):
        GgufTokens(header)
