from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def plateau(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield import_module("plateau")
    for name in ("plateau", "babyllama", "banking77", "curves_data", "llama2c"):
        sys.modules.pop(name, None)


def runs(plateau: Any, arm: str, nats: dict[int, float]) -> list[Any]:
    return [plateau.Run(arm, 1e-3, steps, np.full(4, value), 0.0) for steps, value in nats.items()]


def test_a_power_law_gives_its_own_ratio(plateau: Any) -> None:
    lengths = (16, 32, 64, 128, 256)
    slow = runs(plateau, "scratch + CE", {steps: 10 - math.log(steps) for steps in lengths})
    fast = runs(plateau, "cut + KD", {steps: 10 - math.log(8 * steps) for steps in lengths})
    setup = plateau.Setup(None, None, [], [([0], [1])] * 4, list("aabb"), 100.0)
    assert plateau.interval([*slow, *fast], "cut + KD", setup) == pytest.approx((8, 8, 8))
    assert math.isinf(plateau.tokens_to(0.0, slow, setup.counts))


def test_the_picture_holds_every_point_inside(plateau: Any, tmp_path: Path) -> None:
    curves = {"one": [(1e3, 2.0), (1e6, 0.1)], "other": [(2e4, 0.5), (1e3, 3.0)]}
    plateau.draw(tmp_path / "plot.svg", "Title", curves, 0.3)
    root = ElementTree.parse(tmp_path / "plot.svg").getroot()
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    dots = [each.attrib for each in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(dots) == 4
    assert all(0 < float(dot["cx"]) < width and 0 < float(dot["cy"]) < height for dot in dots)
