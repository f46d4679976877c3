"""Copies and near copies across splits, against the plain definition of Jaccard's similarity."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.errors import TaskError
from flyweight.tasks.items import Item, item_from
from flyweight.tasks.leaks import (
    FEW,
    NEAR,
    Nearest,
    check_leakage,
    grams,
    leak_warnings,
    near_copies,
    normal,
)
from flyweight.tasks.read import read_task

WORDS = [
    "pump",
    "valve",
    "motor",
    "leaks",
    "runs",
    "hot",
    "stopped",
    "again",
    "near",
    "hall",
    "two",
]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)


def item(text: str, line: int = 1, answer: str | None = "yes") -> Item:
    return item_from({"prompt": text, "answer": answer}, line, "here")


def jaccard(a: str, b: str) -> float:
    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


@settings(deadline=None)
@given(st.lists(texts, max_size=FEW - 1), texts, st.floats(0.2, 1.0))
def test_the_nearest_is_found_as_by_comparing_all(
    known: list[str], text: str, least: float
) -> None:
    best = max((jaccard(text, each) for each in known), default=0.0)
    found = Nearest(known, least).find(text)
    if best < least:
        assert found is None
    else:
        assert found is not None
        assert found[1] == pytest.approx(best)
        assert jaccard(text, known[found[0]]) == pytest.approx(best)


def test_what_all_texts_share_makes_no_two_of_them_alike() -> None:
    rng = random.Random(0)
    instruction = "Read the message of a customer and name what it is about, in one word: "
    known = [instruction + " ".join(rng.sample(WORDS, 4)) for _ in range(FEW * 2)]
    other = instruction + "my card was swallowed by a machine"
    assert max(jaccard(other, each) for each in known) > 0.5
    assert Nearest(known, 0.5).find(other) is None
    assert Nearest(known).find(known[3].upper()) == (3, 1.0)


@given(
    texts, st.sampled_from([str.upper, str.title, "  {} ".format, lambda t: t.replace(" ", "\n")])
)
def test_case_and_white_space_make_no_other_text(text: str, change: object) -> None:
    assert callable(change)
    assert normal(change(text)) == normal(text)


def test_a_copy_is_refused_with_file_and_line_of_both() -> None:
    train = [item("pump 1 leaks", 3), item("Pump  2 LEAKS", 4), item("fan 2 stopped", 5)]
    held_out = [item("pump 9 leaks", 7), item("pump 2 leaks", 8, "no"), item("fan 2 stopped", 9)]
    with pytest.raises(TaskError) as refused:
        check_leakage(train, held_out, "mine.jsonl", "task.jsonl")
    message = str(refused.value)
    assert "mine.jsonl, line 4" in message
    assert "task.jsonl, line 8" in message
    assert "1 more like it" in message
    check_leakage(train[:1], held_out, "mine.jsonl", "task.jsonl")


def test_near_copies_count_only_with_the_same_answer() -> None:
    train = [item("Can I still get a disposable virtual card?", 2, "get")]
    near = "When can I still get a disposable virtual card?"
    [copy] = near_copies(train, [item(near, 5, "get")])
    assert copy.similarity >= NEAR
    assert list(near_copies(train, [item(near, 5, "lost")])) == []
    [warning] = leak_warnings(train, [item(near, 5, "get")], "task.jsonl")
    assert "task.jsonl: 1 of the train items" in warning
    assert "lines 2 and 5" in warning
    assert leak_warnings(train, [item("my card is lost", 5, "get")], "task.jsonl") == []


def test_the_demo_leaks_nothing_and_banking77_as_much_as_it_is_known_to(
    tmp_path: Path, shared: Path
) -> None:
    from flyweight.demo.orders import write_task

    demo = read_task(write_task(tmp_path / "demo.jsonl"))
    check_leakage(demo.train, demo.test, "demo", "demo")
    assert leak_warnings(demo.train, demo.test[:100], "demo") == []
    rows: dict[str, list[Item]] = {}
    for name in ("train", "test"):
        with (shared / "data" / "banking77" / f"{name}.csv").open(encoding="utf-8") as file:
            rows[name] = [
                item(each["text"], line, each["category"])
                for line, each in enumerate(csv.DictReader(file), start=2)
            ]
    spaced = [each for each in rows["test"] if "don't live in the UK.  Can" in str(each.messages)]
    with pytest.raises(TaskError, match=f"line {spaced[0].line}"):
        check_leakage(rows["train"], spaced, "train.csv", "test.csv")
