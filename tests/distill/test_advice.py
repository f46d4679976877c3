"""What is concluded from probes: words by the intervals, and a blend of all that help."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flyweight.distill.advice import Probe, advice
from flyweight.distill.probing import Mix

FACTORS = {"good": 0.8, "fine": 0.9, "none": 1.0, "bad": 1.3}


def bench(*corpora: str, together: float = 0.7) -> Any:
    """A bench whose trainings end where FACTORS say, with little luck."""
    items = np.random.default_rng(0).gamma(2.0, 1.0, 60)

    def probe(mix: Mix, seed: int) -> np.ndarray:
        names, share = mix
        factor = FACTORS[names[0]] ** (2 * share) if names else 1.0
        factor = together if len(names) > 1 else factor
        luck = np.random.default_rng([seed, len(names), round(factor * 100)])
        return items * factor * luck.normal(1, 0.02, 60) * luck.normal(1, 0.003)

    return SimpleNamespace(
        corpora=dict.fromkeys(corpora), probe=probe, dev=range(60), groups=list(range(60)),
        dev_tokens=120, tokens=1000,
    )  # fmt: skip


def test_each_has_its_word() -> None:
    found = advice(bench("good", "none", "bad"), [0.5], [0, 1, 2])
    assert [each.word for each in found.probes] == ["helps", "no measurable gain", "harms"]
    assert found.recommendation == "Mix: --corpus good --corpus-share 0.5. These harm: bad."
    assert found.facts()["blend"] == {"corpora": ["good"], "share": 0.5}
    assert found.alone == pytest.approx(1.0, rel=0.3)


@pytest.mark.parametrize(("together", "best"), [(0.7, ("good", "fine")), (0.95, ("good",))])
def test_those_that_help_are_tried_together(together: float, best: tuple[str, ...]) -> None:
    found = advice(bench("good", "fine", "bad", together=together), [0.2, 0.5], [0, 1, 2])
    assert [each.corpora for each in found.probes[-1:]] == [("good", "fine")]
    assert found.best is not None
    assert found.best.corpora == best
    assert found.best.share == 0.5


def test_without_a_gain_there_is_none_to_recommend() -> None:
    found = advice(bench("none"), [0.2, 0.5], [0, 1])
    assert found.best is None
    assert found.recommendation == "Train on the task alone: no corpus shows a gain."


def test_an_interval_that_holds_nothing_is_no_gain() -> None:
    assert Probe(("a",), 0.5, 1.0, -0.1, -0.2, 0.0).word == "no measurable gain"
    assert Probe(("a",), 0.5, 1.0, 0.1, 0.0, 0.2).word == "no measurable gain"
