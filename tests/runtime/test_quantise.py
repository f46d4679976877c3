"""Rounded weights against the gguf package's own rounding and reading, and llama.cpp's engine."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from gguf.quants import quantize as plain
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from flyweight.anatomy.gguf import LLAMA
from flyweight.anatomy.inputs import WINDOW, measure_inputs
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.quantise import QUANTISED, quantise
from flyweight.runtime.rounding import rounded

KINDS = pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
LEAST = 1 + 1e-5  # what sums in 32 bits may differ by


def weights(seed: int, rows: int = 8, columns: int = 96) -> np.ndarray:
    """Blocks of many sizes, some rows mostly zero, some blocks wholly."""
    draw = np.random.default_rng(seed)
    found = draw.standard_t(3, (rows, columns)) * 10.0 ** draw.uniform(-6, 3, (rows, 1))
    found[0, :32] = 0
    found[1] *= draw.random(columns) < 0.1
    found[2] = np.round(found[2] / np.abs(found[2]).max() * 8)  # ties
    return found.astype(np.float32)


def lost(
    x: np.ndarray, stored: np.ndarray, kind: GGMLQuantizationType, by: np.ndarray
) -> np.ndarray:
    """What rows [R, C] lose, by squares [C] or moments [C, C], as the gguf package reads them."""
    error = dequantize(stored, kind).astype(np.float64) - x
    return np.einsum("rc,cd,rd->r", error, np.diag(by) if by.ndim == 1 else by, error)


@KINDS
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_never_worse_than_plain(kind: GGMLQuantizationType, seed: int) -> None:
    x, draw = weights(seed), np.random.default_rng(seed + 1)
    assert quantise(x, kind).shape == plain(x, kind).shape
    squares = draw.exponential(1, x.shape[-1]) ** 3
    squares[draw.random(len(squares)) < 0.2] = 0
    for by in (None, squares):
        ours = quantise(x, kind, squares=by)
        measure = np.ones(x.shape[-1]) if by is None else by
        assert (
            lost(x, ours, kind, measure) <= LEAST * lost(x, plain(x, kind), kind, measure)
        ).all()


def moments_of(columns: int, seed: int = 0) -> np.ndarray:
    """Moments [C, C] of inputs that say much the same in many columns."""
    draw = np.random.default_rng(seed)
    inputs = draw.standard_normal((300, 12)) @ draw.standard_normal((12, columns))
    inputs += 0.1 * draw.standard_normal(inputs.shape)
    return (inputs.T @ inputs / len(inputs)).astype(np.float32)


@KINDS
def test_what_is_made_up_for_says_less_wrong(kind: GGMLQuantizationType) -> None:
    x = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    products = moments_of(96)
    made = lost(x, quantise(x, kind, moments=[products]), kind, products)
    by_columns = lost(x, quantise(x, kind, squares=products.diagonal()), kind, products)
    plainly = lost(x, plain(x, kind), kind, products)
    assert (made <= LEAST * plainly).all()
    assert made.sum() < 0.3 * by_columns.sum()


@KINDS
def test_windows_rows_and_experts_are_each_by_themselves(kind: GGMLQuantizationType) -> None:
    x = np.random.default_rng(1).standard_normal((2, 5000, 64)).astype(np.float32)
    windows = [moments_of(32, 1), moments_of(32, 2)]
    whole = quantise(x, kind, moments=windows)
    assert whole.shape == plain(x, kind).shape
    halves = [quantise(x[..., :32], kind, moments=windows[:1]),
              quantise(x[..., 32:], kind, moments=windows[1:])]  # fmt: skip
    read = np.concatenate([dequantize(each, kind) for each in halves], -1)
    apart = dequantize(whole, kind) - read
    assert (np.abs(apart) > 0).mean() < 1e-3  # sums of other sizes round a tie otherwise


def test_scales_that_hold_no_weight_or_no_input(tiny_llama: Path) -> None:
    for kind in QUANTISED:
        zero = np.zeros((3, 64), np.float32)
        assert not dequantize(quantise(zero, kind), kind).any()
        x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
        dead = np.zeros((64, 64), np.float32)
        for found in (quantise(x, kind, squares=np.zeros(64)), quantise(x, kind, moments=[dead])):
            assert np.abs(dequantize(found, kind) - x).max() < 0.3


def test_inputs_are_what_feeds_each_layer(make_llama: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "m", intermediate_size=WINDOW + 32, tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts = [[0, 9, 8, 7], [3], [], [5, 6]]
    found = measure_inputs(model, texts)
    assert found.tokens == 7
    hidden = [
        model(torch.tensor([ids]), output_hidden_states=True).hidden_states for ids in texts if ids
    ]
    last = torch.cat([each[-1][0] for each in hidden]).detach()  # after the final norm
    [head] = found.moments["lm_head.weight"]
    torch.testing.assert_close(head, last.T @ last / 7, rtol=1e-4, atol=1e-6)
    norm = model.model.layers[0].input_layernorm
    first = norm(torch.cat([each[0][0] for each in hidden])).detach()
    attention = "model.layers.0.self_attn"
    for name in ("q_proj", "k_proj", "v_proj"):
        [query] = found.moments[f"{attention}.{name}.weight"]
        torch.testing.assert_close(query, first.T @ first / 7, rtol=1e-4, atol=1e-6)
    down = found.moments["model.layers.1.mlp.down_proj.weight"]
    assert [tuple(each.shape) for each in down] == [(WINDOW, WINDOW), (32, 32)]
    assert "model.embed_tokens.weight" not in found.moments


@pytest.mark.parametrize("bits", [8, 5, 4])
def test_llama_cpp_says_what_the_rounded_weights_say(
    tiny_llama: Path, tmp_path: Path, prompts: list[list[int]], bits: int
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    inputs = measure_inputs(model, prompts[:20])
    write_gguf(tiny_llama, tmp_path / "m.gguf", bits, LLAMA, inputs)
    reference = rounded(copy.deepcopy(model), tmp_path / "m.gguf", LLAMA)
    with LlamaEngine(tmp_path / "m.gguf", context=64) as engine, torch.inference_mode():
        answers = [(prompt, engine.generate(prompt, 1, top=2).top) for prompt in prompts[:12]]
        said = [(prompt, top[0][0]) for prompt, top in answers if top and top[0]]
        assert len(said) >= 5
        apart = [
            float(reference(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)[token]) - logprob
            for prompt, (token, logprob) in said
        ]
    # the engine rounds what enters a product to 8 bits; a wrong nibble is off by whole nats
    assert np.abs(apart).mean() < 0.08
