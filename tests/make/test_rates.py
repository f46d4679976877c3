"""How long a stage takes is learned from what past stages took."""

from __future__ import annotations

import numpy as np
import pytest

from flyweight.make.rates import ASSUMED, RELATIVES, Rates, Record, Work, assumed


def records(count: int, kind: str, a: float, b: float, noise: float, seed: int = 0) -> list[Record]:
    """Stages of many sizes on a machine that takes `a` a token and `b` an operation."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        tokens, flops = float(generator.integers(10**5, 10**7)), 10 ** generator.uniform(11, 13)
        seconds = (a * tokens + b * flops) * np.exp(generator.normal(0, noise))
        made.append((tokens, flops, float(seconds)))
    return made


def errors(rates: Rates, kind: str, ahead: list[Record]) -> np.ndarray:
    """Quoted over taken, less 1, for stages to come."""
    return np.array([rates.seconds(Work(kind, u, f)) / taken - 1 for u, f, taken in ahead])


@pytest.mark.parametrize("slower", [0.1, 1.0, 12.0])
def test_after_a_few_stages_the_next_is_foretold(slower: float) -> None:
    """On a machine whose two rates are off by different factors from the assumption."""
    _, a, b = ASSUMED["distil"]
    known = records(12, "distil", a * slower, b * slower * 2, 0.1)
    ahead = records(20, "distil", a * slower, b * slower * 2, 0.0, seed=1)
    assert np.median(np.abs(errors(Rates({"distil": known}), "distil", ahead))) < 0.15


def test_a_stage_that_was_held_up_says_little() -> None:
    _, a, b = ASSUMED["distil"]
    known, ahead = records(12, "distil", a, b, 0.05), records(20, "distil", a, b, 0.0, seed=1)
    held_up = [(u, f, taken * (10 if i in (3, 8) else 1)) for i, (u, f, taken) in enumerate(known)]
    assert np.abs(errors(Rates({"distil": held_up}), "distil", ahead)).max() < 0.2


def test_without_records_the_assumption_speaks() -> None:
    work = Work("rank", 10_000, 1e12)
    start, a, b = ASSUMED["rank"]
    assert Rates({}).seconds(work) == pytest.approx(start + 1e4 * a + 1e12 * b)
    assert Rates({}, speed=4).seconds(work) == pytest.approx((start + 1e4 * a + 1e12 * b) / 4)
    training = Work("distil", 0, 1e15)
    faster = Rates({}).seconds(training) / Rates({}, accelerator=100).seconds(training)
    assert faster == pytest.approx(100, rel=0.1)


def test_a_kind_without_records_follows_its_relatives() -> None:
    """A slow trainer tells much of the rival's training and a little of the rest."""
    slow = [(100.0, 1e12, 5 * sum(assumed(Work("distil", 100, 1e12)))) for _ in range(20)]
    usual = [(10.0, 1e12, sum(assumed(Work("rank", 10, 1e12)))) for _ in range(20)]
    rates = Rates({"distil": slow, "rank": usual, "test": usual[:0]})
    factor = {kind: float(rates.factors(kind)[0]) for kind in ("scratch", "record", "test")}
    assert 4 < factor["scratch"] <= 5
    assert 0.8 < factor["record"] < 1.3
    assert factor["record"] < factor["test"] < factor["scratch"]


def test_every_kind_has_its_relatives() -> None:
    assert sorted(kind for group in RELATIVES for kind in group) == sorted(ASSUMED)


@pytest.mark.parametrize("seed", range(5))
def test_more_work_takes_longer_and_never_less_than_nothing(seed: int) -> None:
    """Even after records that fit no rate at all."""
    generator = np.random.default_rng(seed)
    wild: list[Record] = [
        tuple(10 ** generator.uniform((0, 0, -3), (4, 14, 3)))  # type: ignore[misc]
        for _ in range(20)
    ]
    rates = Rates({"distil": wild})
    for _ in range(50):
        tokens, flops = 10 ** generator.uniform((0, 0), (4, 14))
        less = rates.seconds(Work("distil", tokens, flops))
        assert 0 < less < rates.seconds(Work("distil", 2 * tokens, 2 * flops))
        assert less <= rates.seconds(Work("distil", tokens + 1, flops))
