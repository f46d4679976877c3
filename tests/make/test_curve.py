"""Where recovery curves are heading: power laws are found again, and doubt is honest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyweight.make.curve import forecast

STEPS = [50, 100, 150, 200, 300, 400]


def law(power: float, end: float, noise: float = 0.0, seed: int = 0) -> list[float]:
    """Shares whose error falls as steps**-power to `end` at step 800."""
    generator = np.random.default_rng(seed)
    errors = end * (np.array(STEPS) / 800) ** -power
    return (1 - np.minimum(1, errors * np.exp(generator.normal(0, noise, len(STEPS))))).tolist()


@pytest.mark.parametrize(("power", "end"), [(0.8, 0.02), (1.0, 0.05), (1.3, 0.01)])
def test_a_power_law_is_followed_to_its_end(power: float, end: float) -> None:
    found = forecast(STEPS, law(power, end), 800, sample=100_000)
    assert found.low < 1 - end < found.high
    assert found.share == pytest.approx(1 - end, abs=0.6 * end)


def test_more_of_the_curve_leaves_less_doubt() -> None:
    shares = law(1.0, 0.05)
    widths = []
    for count in (1, 3, 6):
        found = forecast(STEPS[:count], shares[:count], 800, sample=200)
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)


def test_the_range_holds_the_end_about_as_often_as_it_says() -> None:
    held = 0
    generator = np.random.default_rng(1)
    for seed in range(200):
        power, end = float(generator.normal(1.0, 0.3)), float(generator.uniform(0.01, 0.1))
        found = forecast(STEPS, law(power, end, noise=0.15, seed=seed), 800, sample=200)
        held += found.low <= 1 - end <= found.high
    assert held >= 0.85 * 200


@given(
    shares=st.lists(st.floats(0, 1.2), min_size=1, max_size=8),
    target=st.floats(0.01, 1.0),
)
@example(shares=[1.0, 1.0, 0.875, 0.0, 0.0, 0.0, 0.0], target=1.0)  # heads for an error above 1
def test_chances_are_chances_and_fall_with_the_target(shares: list[float], target: float) -> None:
    steps = [10 * (i + 1) for i in range(len(shares))]
    found = forecast(steps, shares, 100, sample=50)
    assert 0 <= found.chance(target) <= found.chance(target * 0.9) <= 1
    assert found.low <= found.share <= found.high <= 1


def test_without_a_point_anything_may_come() -> None:
    found = forecast([], [], 100, sample=50)
    assert 0.05 < found.chance(0.95) < 0.5
