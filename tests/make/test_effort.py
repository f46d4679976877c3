"""What an effort decides before anything is known of the task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flyweight.distill.resume import Trained
from flyweight.make import challengers
from flyweight.make.effort import EFFORTS, LEARNING_RATE, MOST_DOUBLINGS, NARROW, learning_rate


@pytest.mark.parametrize("hidden", [8, 64, NARROW])
def test_narrow_students_share_one_rate(hidden: int) -> None:
    assert learning_rate(hidden) == LEARNING_RATE


@pytest.mark.parametrize("hidden", [384, 2048, 4096])
def test_a_step_moves_the_output_of_a_wide_student_no_further(hidden: int) -> None:
    """With Adam the output moves by about rate x width."""
    assert learning_rate(hidden) * hidden == pytest.approx(LEARNING_RATE * NARROW)


@pytest.mark.parametrize(
    ("power", "floor", "score", "times", "note"),
    [
        (0.5, 0.0, 0.5, 2**MOST_DOUBLINGS, "not yet at its plateau"),  # still falls as it ends
        (0.5, 0.93, 0.5, 16, "to its plateau"),  # eight times, and twice that gains nothing
        (0.0, 1.0, 0.5, 1, "to its plateau"),
        (0.0, 1.0, None, 2**MOST_DOUBLINGS, "not yet at its plateau"),  # only the score gains
    ],
)
def test_a_plateau_is_where_twice_the_steps_gain_neither_score_nor_nats(
    monkeypatch: pytest.MonkeyPatch,
    power: float,
    floor: float,
    score: float | None,
    times: int,
    note: str,
) -> None:
    """Courses by a power law, steepest at the usual rate."""

    def lesson(_: Any, __: Any, rate: float, steps: int) -> Any:
        return SimpleNamespace(schedule=SimpleNamespace(steps=steps), rate=rate)

    def learn(_: Any, lesson: Any, steps: int) -> Trained:
        worse = 1 + abs(lesson.rate - 1)
        nats = worse * (floor + (1 - floor) * (steps / 100) ** -power)
        share = 1 - 0.5 * (steps / 100) ** -0.5 if score is None else score
        return Trained(steps, [], [(steps, {"share": share / worse, "nats": nats})])

    monkeypatch.setattr(challengers, "_scratch", lesson)
    monkeypatch.setattr(challengers, "learn", learn)
    form = SimpleNamespace(learning_rate=lambda _: 1.0)
    job: Any = SimpleNamespace(effort=EFFORTS["thorough"], form=form, steps=100)
    chosen: Any = SimpleNamespace(shape=SimpleNamespace(hidden=64))
    found, said = challengers._best_lesson(job, chosen)
    assert (found.rate, found.schedule.steps) == (1.0, 100 * times)
    assert said == f"{note} ({times} times the tokens), best of 3 rates"
