"""How often a test split was opened: every question once, whoever asks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flyweight.errors import FolderError
from flyweight.make.openings import count_opening, openings_file


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path / "state"))


def test_openings_at_once_are_all_counted() -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda k: count_opening("test", f"model {k}", "0.95"), range(40)))
    assert sorted(numbers) == list(range(1, 41))
    assert count_opening("test", "model 7", "0.95") == numbers[7]


def test_a_damaged_record_is_refused_and_kept() -> None:
    count_opening("test", "model", "0.95")
    openings_file("test").write_text('[["mod')
    with pytest.raises(FolderError, match=r"test\.json: not a record.*Bring back a copy"):
        count_opening("test", "model", "0.95")
    assert openings_file("test").read_text() == '[["mod'
