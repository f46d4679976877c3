"""Packed rows: documents side by side learn, and say, exactly what they do alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import zoo
from flyweight.distill import trainer
from flyweight.distill.losses import Batch, cross_entropy, wanted_hidden
from flyweight.distill.packing import JOINED, PackedRow, packable, side_by_side, size
from flyweight.distill.teacher import record_teacher
from flyweight.distill.trainer import Row, collate

LENGTHS = (14, 9, 3, 20, 2, 7, 11)  # of documents; gemma's windows are of 6 tokens
CLOSE = 1e-5


def documents(lengths: Any = LENGTHS, vocabulary: int = 80) -> list[Row]:
    generator = np.random.default_rng(0)
    rows = []
    for length in lengths:
        weights = generator.choice([0.0, 0.2, 1.0], size=length).astype(np.float32)
        weights[-1] = 1
        ids = generator.integers(3, vocabulary, size=length).astype(np.int32)
        rows.append({"input_ids": ids, "weights": weights})
    return rows


def learned(model: Any, batches: list[Batch]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits at the wanted places of all batches, and the gradient of their whole loss."""
    model.zero_grad()
    logits = []
    for batch in batches:
        batch["total"] = torch.tensor(10.0)
        cross_entropy(model, batch).backward()
        with torch.no_grad():
            logits.append(model.lm_head(wanted_hidden(model, batch)))
    return torch.cat(logits), {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", zoo.DECODERS)
def test_documents_of_a_row_do_not_see_each_other(name: str, attention: str) -> None:
    model = zoo.build(name)
    if attention == "sdpa" and not model._supports_sdpa:
        pytest.skip("the family's own attention is eager alone")
    model.set_attn_implementation(attention)
    rows = side_by_side(documents(), 24)
    assert max(len(row.parts) for row in rows) > 2
    parts = [part for row in rows for part in row.parts]
    together, gradient = learned(model, [collate(rows)])
    alone, wished = learned(model, [collate([part]) for part in parts])
    assert_close(together, alone)
    assert gradient.keys() == wished.keys()
    for label, each in gradient.items():
        assert_close(each, wished[label])
    assert packable(model, 24)


def assert_close(found: Tensor, wished: Tensor) -> None:
    scale = max(1.0, float(wished.abs().max()))
    assert found.shape == wished.shape
    assert float((found - wished).abs().max()) <= CLOSE * scale


@given(st.lists(st.integers(2, 20), min_size=1, max_size=40))
def test_every_document_stands_in_one_row(lengths: list[int]) -> None:
    rows = side_by_side(documents(lengths), 20)
    assert sorted(size(part) for row in rows for part in row.parts) == sorted(lengths)
    assert all(size(row) <= 20 for row in rows)
    assert len(rows) <= 11 / 9 * -(-sum(lengths) // 20) + 6 / 9 + len(lengths) / 2


def test_no_document_predicts_the_first_token_of_the_next() -> None:
    row = PackedRow(documents((4, 3, 2)))
    assert row["position_ids"].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1]
    assert row["weights"][[0, 4, 7]].tolist() == [0, 0, 0]
    batch = collate([row, PackedRow(documents((17,)))])
    assert batch["position_ids"].shape == (2, 24)
    assert batch["position_ids"][0, 9:].tolist() == list(range(2, 17))


def test_what_the_teacher_said_stays_with_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heard alone, laid side by side: the same as hearing the packed row."""
    monkeypatch.setattr(trainer, "fast_dtype", lambda *_: torch.float32)
    teacher, rows = zoo.build("qwen3"), documents((9, 5, 8))
    packed = PackedRow(record_teacher(teacher, rows, 8))
    [heard] = record_teacher(teacher, [{key: packed[key] for key in JOINED}], 8)
    assert torch.equal(packed["indices"], heard["indices"])
    assert (packed["top"] - heard["top"]).abs().max() < 1e-3
    assert (packed["tail"] - heard["tail"]).abs().max() < 1e-3


def test_frequencies_that_depend_on_the_batch_are_refused() -> None:
    model = zoo.build("llama", max_position_embeddings=128, rope_parameters={
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
    })  # fmt: skip
    assert packable(model, 32)
    assert not packable(model, 33)


def test_attention_that_takes_no_notice_is_found_out() -> None:
    model = zoo.build("llama")
    forward = model.base_model.forward
    model.base_model.forward = lambda input_ids, use_cache, position_ids=None: forward(
        input_ids=input_ids, use_cache=use_cache
    )
    assert not packable(model, 24)
