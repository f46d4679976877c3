"""Results of stages as files: measurements, parity, shapes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.anatomy import Shape
from flyweight.card import Parity
from flyweight.make.bench import Result
from flyweight.make.form import Cost
from flyweight.make.rank import RankedShape
from flyweight.runtime.hardware import own_name
from flyweight.sticker_card import Metered

PARITY = "parity.json"
IMPORTANCE = "importance.safetensors"
# What a stage of another format holds is worked out anew.
IMPORTANCE_FORMAT = 3
PACK_FORMAT = 2
_RESULT, _RANKING = "result.json", "ranking.json"


def measured_here() -> dict[str, Any]:
    """What a measurement hangs on beside what it is of: another machine has other latencies."""
    return {"format": 2, "machine": own_name()}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def save_result(folder: Path, result: Result) -> None:
    """One model's scores, answers and costs on one split."""
    metered = result.cost.metered
    told = {
        "scores": result.scores.tolist(),
        "answers": result.answers,
        "cost": asdict(result.cost) | {"metered": metered and metered.model_dump()},
    }
    write_json(folder / _RESULT, told)


def load_result(folder: Path) -> Result:
    told = read_json(folder / _RESULT)
    cost = told["cost"]
    metered = cost["metered"] and Metered.model_validate(cost["metered"])
    return Result(np.array(told["scores"]), told["answers"], Cost(**{**cost, "metered": metered}))


def save_parity(folder: Path, found: Parity) -> None:
    """How an exported file compares with its checkpoint."""
    (folder / PARITY).write_text(found.model_dump_json(), encoding="utf-8")


def load_parity(folder: Path) -> Parity:
    return Parity.model_validate_json((folder / PARITY).read_bytes())


def save_ranking(folder: Path, ranked: Sequence[RankedShape]) -> None:
    """The shapes of one level, nearest to the teacher first."""
    write_json(folder / _RANKING, [asdict(each) for each in ranked])


def load_ranking(folder: Path) -> list[RankedShape]:
    return [
        RankedShape(Shape(**each.pop("shape")), **each) for each in read_json(folder / _RANKING)
    ]
