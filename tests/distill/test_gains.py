"""Changes of loss: their size, and intervals that know of the items and of the seeds."""

from __future__ import annotations

import numpy as np
import pytest

from flyweight.distill.gains import changes
from flyweight.tasks.statistics import paired_ratio


def losses(seeds: int, items: int, spread: float, seed: int = 0) -> np.ndarray:
    """[seeds, items]: items that differ, and trainings that do by `spread`."""
    generator = np.random.default_rng(seed)
    each = generator.gamma(2.0, 1.0, items)
    return each * np.exp(spread * generator.normal(size=(seeds, 1)))


def test_a_known_change_is_found() -> None:
    alone = losses(3, 40, 0.0)
    noise = np.random.default_rng(1).normal(1, 0.05, (3, 40))
    groups = list(range(40))
    [(less, low, high), (same, below, above)] = changes(
        alone, [0.9 * alone * noise, alone * noise[::-1]], groups
    )
    assert less == pytest.approx(-0.1, abs=0.02)
    assert low < less < high < 0
    assert below < 0 < above
    assert below < same < above


def test_without_a_spread_of_seeds_only_items_count() -> None:
    alone = np.repeat(losses(1, 30, 0.0), 2, axis=0)
    other = alone * np.random.default_rng(1).normal(1, 0.1, 30)
    [(change, low, high)] = changes(alone, [other], list(range(30)))
    ratio = paired_ratio(other[0], alone[0], list(range(30)), 0.975)
    assert (change, low, high) == pytest.approx(
        (ratio.estimate - 1, ratio.low - 1, ratio.high - 1), rel=1e-6
    )


@pytest.mark.parametrize("spreads", [(1, 1, 1), (1, 1, 1, 1, 1, 3)])
def test_luck_of_the_seeds_is_no_gain(spreads: tuple[float, ...]) -> None:
    """Trainings that differ by nothing but luck, far more than items do and one more than others,
    are told as different in at most a twentieth of cases: of 250, in 20 at most (by chance beyond
    once in 60)."""
    wrong = 0
    for trial in range(250):
        generator = np.random.default_rng(trial)
        alone, *others = (
            np.exp(0.05 * spread * generator.normal(size=(3, 1))) * np.ones((1, 3))
            for spread in (1, *spreads)
        )
        found = changes(alone, others, list(range(3)))
        wrong += any(low > 0 or high < 0 for _, low, high in found)
    assert wrong <= 20
