"""Parity finds what is equal equal, and every wrong export wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from flyweight.anatomy.gguf import LLAMA, GgufMap
from flyweight.errors import ParityError
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.parity import check_alive, check_parity, check_tokenizer, compare

UP, GATE = (f"model.layers.{{i}}.mlp.{name}_proj.weight" for name in ("up", "gate"))
UP_GGUF = "blk.{i}.ffn_up.weight"
SHAPES = {
    "plain": {},
    "tied, odd widths": {
        "tie_word_embeddings": True,
        "hidden_size": 48,
        "head_dim": 24,
        "intermediate_size": 80,
    },
    "all heads their own keys": {"num_key_value_heads": 4, "rms_norm_eps": 1e-2},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e4, "factor": 2.0}},
    "llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_exports_answer_as_transformers_does(
    shape: dict[str, object],
    make_llama: Callable[..., Path],
    tmp_path: Path,
    prompts: list[list[int]],
) -> None:
    folder = make_llama(tmp_path / "model", **shape)
    write_gguf(folder, tmp_path / "model.gguf", 16, LLAMA)
    report = compare(folder, tmp_path / "model.gguf", prompts, 16)
    assert report.differing == []
    assert report.equal + len(report.near_ties) == report.prompts == len(prompts)
    # a random model is undecided more often than a trained one, but not everywhere
    assert report.equal >= 0.8 * report.prompts


def test_parting_places_are_those_of_greedy_generation(
    tiny_llama: Path, tiny_files: dict[int, Path], prompts: list[list[int]]
) -> None:
    report = compare(tiny_llama, tiny_files[4], prompts, 10)
    found = {d.prompt: d for d in (*report.differing, *report.near_ties)}
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with LlamaEngine(tiny_files[4], context=64) as engine:
        said = [engine.generate(prompt, 10).ids for prompt in prompts]
    for place, prompt in enumerate(prompts):
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=10, do_sample=False)
        wanted = ids[0, len(prompt) :].tolist()
        pairs = list(zip(said[place], wanted, strict=False))
        parted = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        assert parted == (found[place].position if place in found else None)
    assert report.differing, "4 bits of a random model are not the model"


@pytest.mark.parametrize(
    "wrong",
    [
        replace(LLAMA, interleaved={}),
        replace(LLAMA, metadata=lambda c: LLAMA.metadata(c) | {"rope.freq_base": 1000.0}),
        replace(LLAMA, tensors={**LLAMA.tensors, UP: "blk.{i}.ffn_gate.weight", GATE: UP_GGUF}),
    ],
    ids=["rows not interleaved", "another rope", "gate and up swapped"],
)
def test_wrong_exports_are_found(
    wrong: GgufMap, tiny_llama: Path, tmp_path: Path, prompts: list[list[int]]
) -> None:
    path = tmp_path / "wrong.gguf"
    write_gguf(tiny_llama, path, 16, wrong)
    with pytest.raises(ParityError, match="differ from transformers"):
        check_parity(tiny_llama, path, prompts, 16)


def test_too_many_near_ties_are_refused(
    tiny_llama: Path, tiny_files: dict[int, Path], prompts: list[list[int]]
) -> None:
    with pytest.raises(ParityError, match="near ties, 1 allowed"):
        check_parity(tiny_llama, tiny_files[4], prompts, 10, tie_nats=1e9)
    report = check_parity(tiny_llama, tiny_files[4], prompts, 10, tie_nats=1e9, tie_share=1.0)
    assert len(report.near_ties) > 1


def test_a_tokenizer_that_splits_otherwise_is_found(
    tiny_llama: Path, tiny_files: dict[int, Path], tmp_path: Path
) -> None:
    texts = ["the pump is hot", "we'll see 123 bars"]
    assert check_tokenizer(tiny_llama, tiny_files[16], texts) == 2
    other = tmp_path / "other"
    other.mkdir()
    described = json.loads((tiny_llama / "tokenizer.json").read_text())
    described["model"]["merges"] = []
    (other / "tokenizer.json").write_text(json.dumps(described))
    (other / "tokenizer_config.json").write_text((tiny_llama / "tokenizer_config.json").read_text())
    with pytest.raises(ParityError, match="splits 'the pump is hot'"):
        check_tokenizer(other, tiny_files[16], texts)


def test_alive(tiny_files: dict[int, Path], tmp_path: Path, prompts: list[list[int]]) -> None:
    assert check_alive(tiny_files[4], prompts[:3]) == 3
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_files[4].read_bytes()[:-500])
    with pytest.raises(ParityError, match="does not run"):
        check_alive(broken, prompts[:3])
