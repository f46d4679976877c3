"""Results of stages as files: measurements, parity, shapes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.anatomy import Shape
from flyweight.make.bench import Result
from flyweight.make.rank import RankedShape
from flyweight.runtime.measure import Measurement
from flyweight.runtime.parity import Difference, ParityReport

PARITY = "parity.json"
IMPORTANCE = "importance.safetensors"
IMPORTANCE_FORMAT = 3  # what a stage of another format holds is worked out anew
_RESULT, _RANKING = "result.json", "ranking.json"


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def save_result(folder: Path, result: Result) -> None:
    """One model's scores, answers and costs on one split."""
    told = {
        "scores": result.scores.tolist(),
        "answers": result.answers,
        "cost": asdict(result.cost),
    }
    write_json(folder / _RESULT, told)


def load_result(folder: Path) -> Result:
    told = read_json(folder / _RESULT)
    return Result(np.array(told["scores"]), told["answers"], Measurement(**told["cost"]))


def save_parity(folder: Path, report: ParityReport) -> None:
    """How an exported file compares with its checkpoint."""
    write_json(folder / PARITY, asdict(report))


def load_parity(folder: Path) -> ParityReport:
    told = read_json(folder / PARITY)
    ties, differing = (
        [Difference(**each) for each in told.pop(name)] for name in ("near_ties", "differing")
    )
    return ParityReport(**told, near_ties=ties, differing=differing)


def save_ranking(folder: Path, ranked: Sequence[RankedShape]) -> None:
    """The shapes of one level, nearest to the teacher first."""
    write_json(folder / _RANKING, [asdict(each) for each in ranked])


def load_ranking(folder: Path) -> list[RankedShape]:
    return [
        RankedShape(Shape(**each.pop("shape")), **each) for each in read_json(folder / _RANKING)
    ]
