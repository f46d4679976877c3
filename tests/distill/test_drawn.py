"""What is drawn from a teacher's tail: right on average, whole, and the same each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flyweight.distill.cache import record
from flyweight.distill.chunked import top_from_hidden
from flyweight.distill.divergences import Blend, Top, against_top_, top_of
from flyweight.distill.drawn import Draw, top_with_drawn, variance
from flyweight.distill.head import Head
from flyweight.distill.losses import Distillation
from flyweight.distill.objectives import Aim
from flyweight.distill.packed import bytes_a_token, kept, pack, rounding, unpack
from flyweight.distill.packing import PackedRow
from flyweight.distill.trainer import collate
from flyweight.distill.wish import Wish

Build = Callable[..., Any]
V, K, S = 300, 10, 16
DRAWS = 8000


def lots(count: int, seed: int = 0) -> torch.Tensor:
    return Draw(S, torch.Generator().manual_seed(seed)).lots(count)


def uneven(seed: int = 0, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(V, generator=torch.Generator().manual_seed(seed)) * spread


def drawn_of(logits: torch.Tensor, draws: int = DRAWS) -> Top:
    """The same place [V] drawn many times."""
    top = top_with_drawn(logits.expand(draws, V).clone(), K, S, lots(draws))
    assert top.drawn is not None
    return top


def tail_of(logits: torch.Tensor) -> torch.Tensor:
    """The exact probabilities [V], 0 at the top."""
    p = logits.double().softmax(-1)
    return p.scatter(-1, p.topk(K).indices, 0)


# right on average


@pytest.mark.parametrize("spread", [0.5, 2.0, 4.0])
def test_each_token_of_the_tail_gets_its_mass_on_average(spread: float) -> None:
    logits = uneven(spread=spread)
    drawn = drawn_of(logits).drawn
    assert drawn is not None
    p, masses = tail_of(logits), drawn.log_p.double().exp()
    given = torch.zeros(DRAWS, V).double().scatter_add_(-1, drawn.indices, masses)
    level = masses.amin()
    error = (p * (level - p)).clamp_min(0).div(DRAWS).sqrt()  # of a mass of c with probability p/c
    off = (given.mean(0) - p).abs()
    assert (off <= 4.5 * error + 1e-6 * p).all()
    assert (off[p >= level] < 1e-6).all()  # those above c are always there
    # the variance that is told is that of what was drawn, or a little more
    found = ((given - p) ** 2).sum(-1).mean()
    assert 0.98 < variance(drawn)[0] / found < 3


def test_forward_kl_and_its_gradient_are_right_on_average() -> None:
    logits, student = uneven(), uneven(1)
    top = drawn_of(logits)
    assert top.drawn is not None
    columns = pack(top, V)
    every = slice(None)
    log_top, indices = (unpack(columns, every, key, drawn=True) for key in ("top", "indices"))
    said = Top(log_top, indices)
    ones, targets = torch.ones(DRAWS), torch.zeros(DRAWS, dtype=torch.long)
    values, gradient = against_top_(
        Blend(1.0), student.expand(DRAWS, V).clone(), said[:], targets, ones
    )
    log_p, log_q = logits.double().log_softmax(-1), student.double().log_softmax(-1)
    p = log_p.exp()
    # of the teacher's own entropy is known what it is, and of the one drawn as well
    own = (p * log_p).sum() - (said.log_p.double().exp() * said.log_p.double()).sum(-1)
    found = values.double() + own
    error = float(found.std()) / np.sqrt(DRAWS)
    moved = rounding(top, columns).mean()
    assert abs(float(found.mean() - (p * (log_p - log_q)).sum())) < 4 * error + float(moved)
    assert error < 0.01
    off = gradient.double() - (log_q.exp() - p)
    told = variance(top.drawn).mean() / DRAWS
    assert off.mean(0).square().sum() < 2 * told
    hidden = top_of(logits[None].clone(), K)  # as one event: off by more than all the draws at once
    _, as_one = against_top_(Blend(1.0), student[None].clone(), hidden[:], targets[:1], ones[:1])
    assert (as_one - (log_q.exp() - p)).square().sum() > 20 * off.mean(0).square().sum()


# whole


CASES = {
    "even": torch.zeros(V),
    "uneven": uneven(),
    "confident": uneven(spread=9.0),
    "one of the tail has it all": torch.full((V,), -30.0).index_fill(0, torch.arange(K + 1), 5.0),
    "few are possible": torch.full((V,), -torch.inf).index_fill(0, torch.arange(K + 5), 1.0),
    "as many as are drawn": torch.full((V,), -torch.inf).index_fill(0, torch.arange(K + S), 1.0),
    "none but the top": torch.full((V,), -torch.inf).index_fill(0, torch.arange(K), 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_all_that_is_said_sums_to_one(case: str) -> None:
    logits = CASES[case]
    top = drawn_of(logits, 500)
    plain = top_of(logits.expand(500, V).clone(), K)
    assert torch.equal(top.log_p, plain.log_p)
    assert torch.equal(top.indices, plain.indices)
    assert top.drawn is not None
    assert top.tail is not None
    every = torch.cat([top.indices, top.drawn.indices], -1)
    assert all(len(set(line)) == K + S for line in every.tolist())  # none of them twice
    assert 0 <= int(every.min()) <= int(every.max()) < V
    told = top.drawn.log_p.double()
    assert (told.diff(dim=-1) <= 0).all()
    torch.testing.assert_close(told.exp().sum(-1), top.tail.double().exp())
    columns = pack(top, V)
    kept_p = unpack(columns, slice(None), "top", drawn=True).double()
    assert torch.equal(unpack(columns, slice(None), "indices", drawn=True).long(), every)
    torch.testing.assert_close(kept_p.exp().sum(-1), torch.ones(500).double())
    assert torch.equal(kept_p[:, :K].float(), unpack(columns, slice(None), "top"))
    # no mass is off by more than half a step, twice: its own and in the sum
    far = (told[:, :1] - told[:, -1:]).clamp(max=80) / 255 + 1e-5
    sizeable = told > -80
    assert ((kept_p[:, K:] - told).abs() <= far)[sizeable].all()


@pytest.mark.parametrize(
    ("vocabulary", "drawn", "size"),
    [
        (2048, 32, 300),
        (65_536, 32, 300),
        (128_256, 28, 300),
        (262_144, 24, 298),
        (300_000, 21, 299),
    ],
)
def test_a_token_takes_300_bytes_at_most(vocabulary: int, drawn: int, size: int) -> None:
    assert kept(64, vocabulary) == (64, drawn)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, vocabulary, generator=generator)
    top = top_with_drawn(logits, 64, drawn, torch.rand(3, generator=generator))
    columns = pack(top, vocabulary)
    assert sum(each.nbytes for each in columns.values()) == 3 * size
    assert bytes_a_token(64, vocabulary, drawn) == size
    found = unpack(columns, slice(1, 3), "indices", drawn=True).long()
    assert top.drawn is not None
    assert torch.equal(found[:, 64:], top.drawn.indices[1:])


# the same each time


def test_chunks_draw_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(40, 8, generator=generator), torch.randn(V, 8, generator=generator)
    found = []
    for budget in (2**28, 40_000):
        draw = Draw(S, torch.Generator().manual_seed(5))
        found.append(top_from_hidden(hidden, Head(weight), K, budget=budget, draw=draw).drawn)
    one, other = found
    assert one is not None
    assert other is not None
    assert (one.indices == other.indices).float().mean() > 0.99  # products round by their size
    torch.testing.assert_close(one.log_p, other.log_p)


def wish_of(k: int = 12) -> Wish:
    generator = np.random.default_rng(0)
    rows = [
        {"input_ids": generator.integers(3, 80, n), "weights": np.ones(n, dtype=np.float32)}
        for n in (9, 5, 12, 7)
    ]
    return Wish(rows, {"teacher": "abc"}, 80, k)


def test_a_shard_has_numbers_of_its_own() -> None:
    draws = [wish_of().draw(number) for number in (0, 0, 1)]
    one, again, other = (draw.lots(20) for draw in draws if draw)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_record_is_read_with_what_is_drawn_or_without(small_model: Build, tmp_path: Path) -> None:
    teacher = small_model(seed=3)
    found = record(tmp_path, wish_of(), lambda: teacher)
    plain, drawn = found.rows(), found.rows(drawn=True)
    assert found.wish.drawn == 6
    assert "6 drawn of the others" in str(found)
    assert "right on average" in str(found)
    for one, other in zip(plain, drawn, strict=True):
        assert other["top"].shape == other["indices"].shape == (len(one["tail"]), 12 + 6)
        assert "tail" in one
        assert "tail" not in other
        assert torch.equal(one["top"], other["top"][:, :12])
        torch.testing.assert_close(other["top"].exp().sum(-1), torch.ones(len(one["tail"])))
    batch = collate([PackedRow(drawn[:2]), *map(PackedRow, ([drawn[2]], [drawn[3]]))])
    assert "tail" not in batch
    assert batch["top"].shape == (sum(found.wish.counts), 18)
    loss = Distillation(1.0)(small_model(seed=4), batch)
    assert 0 < loss < np.inf


def test_nothing_is_drawn_where_all_is_kept(small_model: Build, tmp_path: Path) -> None:
    found = record(tmp_path, wish_of(k=54), small_model)
    assert (found.wish.k, found.wish.drawn) == (80, 0)
    assert (wish_of(k=53).k, wish_of(k=53).drawn) == (53, 26)
    assert "drawn" not in str(found)
    for one, other in zip(found.rows(), found.rows(drawn=True), strict=True):
        assert torch.equal(one["top"], other["top"])
        assert "tail" not in other


@pytest.mark.parametrize(
    ("aim", "drawn"),
    [
        (Aim(), True),
        (Aim("reverse-kl"), False),
        (Aim("jsd"), False),
        (Aim("cross-entropy"), False),
        (Aim(on_policy=0.5), False),
    ],
)
def test_only_forward_kl_learns_from_what_is_drawn(aim: Aim, drawn: bool) -> None:
    assert aim.drawn == drawn
