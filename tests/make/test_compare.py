"""`flyweight compare`: two folders, in pairs where they answered the same items."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sample_card import sample_card

import flyweight
from flyweight.card import ItemScores
from flyweight.errors import FolderError
from flyweight.folder import write_card, write_scores
from flyweight.tasks.statistics import paired_ratio

ITEMS = [f"item{i}" for i in range(200)]
GROUPS = [f"group{i // 2}" for i in range(200)]


def folder(
    place: Path, student: list[float], order: list[int] | None = None, *, lower: bool = False
) -> Path:
    """A model folder whose test items scored `student`, stored in `order`."""
    order = order or list(range(len(ITEMS)))
    place.mkdir()
    write_card(place, sample_card())
    scores = ItemScores(
        test_sha256="0",
        score="exact",
        lower_is_better=lower,
        items=[ITEMS[i] for i in order],
        groups=[GROUPS[i] for i in order],
        teacher=[1.0] * len(order),
        student=[student[i] for i in order],
    )
    write_scores(place, scores)
    return place


def right(wrong: int) -> list[float]:
    return [float(i >= wrong) for i in range(len(ITEMS))]


def test_the_same_items_in_another_order_are_paired(tmp_path: Path) -> None:
    shuffled = np.random.default_rng(0).permutation(len(ITEMS)).tolist()
    one = folder(tmp_path / "one", right(10))
    other = folder(tmp_path / "other", right(60), shuffled)
    found = flyweight.compare(one, other)["ratio"]
    wanted = paired_ratio(right(60), right(10), GROUPS, 0.975)
    assert found["estimate"] == pytest.approx(140 / 190)
    assert (found["low"], found["high"]) == pytest.approx((wanted.low, wanted.high))
    assert found["differing"] == 50


@pytest.mark.parametrize(
    ("wrong", "lower", "said"),
    [(10, False, "No measurable difference"), (80, False, "is worse than"), (0, True, "is worse")],
)
def test_the_sentence_says_what_the_interval_shows(
    wrong: int,
    lower: bool,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    base = right(10) if not lower else right(100)
    one = folder(Path("one"), base, lower=lower)
    other = folder(Path("o[ther]"), right(wrong), lower=lower)
    flyweight.compare(one, other)
    told = capsys.readouterr().out
    assert said in " ".join(told.split())
    assert told.count("o[ther]") == 1 + ("worse" in said)  # in the table and the sentence


def test_other_items_are_not_compared_in_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = folder(tmp_path / "one", right(10))
    other = folder(tmp_path / "other", right(10), list(range(100)))
    assert flyweight.compare(one, other, json=True)["ratio"] is None
    assert json.loads(capsys.readouterr().out)["ratio"] is None
    flyweight.compare(one, other)
    assert "not judged on the same items" in capsys.readouterr().out


def test_a_folder_without_a_card_is_named(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", right(10))
    with pytest.raises(FolderError, match=r"nothing is no folder\. Give a model folder"):
        flyweight.compare(one, tmp_path / "nothing")
