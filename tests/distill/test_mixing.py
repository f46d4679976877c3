"""Mixing: shares hold, nothing is lost, the seed decides; a plan keeps the size of a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from flyweight.distill.mixing import WINDOW, Source, mixed, one_by_one
from flyweight.distill.packing import size
from flyweight.distill.plan import planned
from flyweight.distill.trainer import Row
from flyweight.errors import OptionError

LENGTH = 64


def rows(mark: int, count: int, low: int, high: int) -> list[Row]:
    generator = np.random.default_rng(mark)
    return [
        {"input_ids": np.full(n, mark, dtype=np.int32), "weights": np.ones(n, dtype=np.float32)}
        for n in generator.integers(low, high + 1, count)
    ]


def tokens_of(found: Sequence[Mapping[str, Any]]) -> Counter[int]:
    return Counter(np.concatenate([row["input_ids"] for row in found]).tolist())


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_each_has_its_share_of_the_tokens(share: float) -> None:
    sources = [Source(rows(1, 50, 5, 20), 1 - share), Source(rows(2, 30, 10, LENGTH), share)]
    count = 6 * WINDOW
    found = mixed(sources, LENGTH, count, seed=0)
    assert len(found) == count
    told = tokens_of(found)
    assert told[2] / told.total() == pytest.approx(share, abs=0.01)
    assert told.total() > 0.97 * count * LENGTH  # little padding
    for start in range(0, count, WINDOW):  # early and late as well
        part = tokens_of(found[start : start + WINDOW])
        assert part[2] / part.total() == pytest.approx(share, abs=0.1)


@given(st.integers(1, 150), st.integers(0, 3))
def test_the_seed_alone_decides(count: int, seed: int) -> None:
    sources = [Source(rows(1, 9, 2, 20), 0.5), Source(rows(2, 3, 2, 30), 0.5)]
    one, other = (mixed(sources, 32, count, seed) for _ in range(2))
    assert [row["input_ids"].tolist() for row in one] == [r["input_ids"].tolist() for r in other]
    assert len(one) == count
    assert max(map(size, one)) <= 32


def test_every_row_comes_before_any_comes_again() -> None:
    source = [
        {"input_ids": np.array([i, i]), "weights": np.ones(2, dtype=np.float32)} for i in range(40)
    ]
    found = one_by_one([Source(source, 1.0)], 80, seed=1)
    first = [int(row["input_ids"][0]) for row in found]
    assert sorted(first[:40]) == sorted(first[40:]) == list(range(40))
    assert first[:40] != first[40:]


def test_a_step_keeps_its_tokens() -> None:
    items = rows(1, 100, 40, 60)
    made = {"steps": 10, "share": 0.5, "context": 2048}
    for batch_size in (2, 7, 15, 32, 47):
        plan = planned(items, batch_size=batch_size, row_length=None, **made)
        wanted = max(128, batch_size * np.mean([*map(size, items)]))
        assert 128 <= plan.length <= 512
        assert plan.batch_size * plan.length == pytest.approx(wanted, rel=0.01)
        assert plan.tokens == pytest.approx(0.5 * 10 * wanted, rel=0.01)
    long = planned([*items, *rows(2, 1, 900, 900)], batch_size=2, row_length=None, **made)
    assert (long.length, long.batch_size) == (900, 1)
    assert planned([], batch_size=4, row_length=None, **made).tokens == 10 * 4 * 512
    assert planned(items, batch_size=32, row_length=64, **made).length == 64
    with pytest.raises(OptionError, match="--row-length is 30: give a number from 60"):
        planned(items, batch_size=32, row_length=30, **made)


def test_a_model_that_cannot_has_a_document_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    model = zoo.build("llama", max_position_embeddings=128, rope_parameters={
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
    })  # fmt: skip
    items, texts = rows(1, 100, 8, 12), rows(2, 50, 64, 64)
    plan = planned(items, steps=30, batch_size=64, share=0.5, row_length=64, context=128)
    batches = plan.batches(items, [texts], [model], seed=0)
    found = [batches.rows[place] for step in batches.places for place in step]
    assert "a row of its own" in capsys.readouterr().err
    assert len(batches.places) == 30
    assert len({*map(len, batches.places)}) == 1
    told = tokens_of(found)
    assert told[2] / told.total() == pytest.approx(0.5, abs=0.05)
    assert told.total() == pytest.approx(30 * 640, rel=0.2)
    assert all(len(row.parts) == 1 for row in found)  # type: ignore[attr-defined]
