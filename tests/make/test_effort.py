"""What an effort decides before anything is known of the task."""

from __future__ import annotations

import pytest

from flyweight.make.effort import LEARNING_RATE, NARROW, learning_rate


@pytest.mark.parametrize("hidden", [8, 64, NARROW])
def test_narrow_students_share_one_rate(hidden: int) -> None:
    assert learning_rate(hidden) == LEARNING_RATE


@pytest.mark.parametrize("hidden", [384, 2048, 4096])
def test_a_step_moves_the_output_of_a_wide_student_no_further(hidden: int) -> None:
    """With Adam the output moves by about rate x width."""
    assert learning_rate(hidden) * hidden == pytest.approx(LEARNING_RATE * NARROW)
