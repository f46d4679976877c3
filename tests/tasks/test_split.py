"""Whole groups by hash, and what given splits must not do."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.errors import TaskError
from flyweight.tasks.items import Item, default_group
from flyweight.tasks.split import SPLITS, divide, split_groups


def item(prompt: str, line: int, group: str = "") -> Item:
    messages = ({"role": "user", "content": prompt},)
    return Item(messages, "x", group=group or default_group(messages), line=line)


def items_of(groups: list[str]) -> list[Item]:
    return [item(f"prompt {line}", line, group) for line, group in enumerate(groups, start=1)]


def complaint(items: list[Item], given_splits: list[str | None]) -> str:
    with pytest.raises(TaskError) as caught:
        divide(items, given_splits, "t.jsonl", "line")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(st.lists(st.text(min_size=1, max_size=5), min_size=3, max_size=60))
def test_every_item_lands_in_one_split_and_a_group_never_straddles(groups: list[str]) -> None:
    items = items_of(groups)
    if len(set(groups)) < len(SPLITS):
        assert "too few groups" in complaint(items, [None] * len(items))
        return
    parts = divide(items, [None] * len(items), "t.jsonl", "line")
    assert all(parts.values())
    lines = sorted(item.line for part in parts.values() for item in part)
    assert lines == [item.line for item in items]
    train, dev, test = ({item.group for item in parts[name]} for name in SPLITS)
    assert train.isdisjoint(dev | test)
    assert dev.isdisjoint(test)


@given(st.sets(st.text(max_size=6), min_size=3, max_size=40), st.randoms())
def test_the_order_of_groups_does_not_matter(groups: set[str], rng: random.Random) -> None:
    ordered = sorted(groups)
    shuffled = rng.sample(ordered, len(ordered))
    assert split_groups(ordered) == split_groups(shuffled + shuffled[:2])


@given(st.sets(st.text(max_size=6), max_size=40))
def test_groups_stay_where_they_are_when_others_are_added(more: set[str]) -> None:
    groups = {f"group {n}" for n in range(100)}
    before, after = split_groups(groups), split_groups(groups | more)
    assert {group: after[group] for group in groups} == before


def test_shares_are_about_70_10_20() -> None:
    chosen = list(split_groups(str(n) for n in range(20_000)).values())
    shares = [chosen.count(split) / len(chosen) for split in SPLITS]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.015)  # over four standard errors


def test_the_split_is_the_same_on_every_machine() -> None:
    # By hand from `printf NAME | sha256sum`, whose first byte of 256 tells: a is ca (0.789),
    # b 3e (0.24), f 25 (0.15), g cd (0.801), h aa (0.67).
    assert split_groups("abfgh") == {
        "a": "dev",
        "b": "train",
        "f": "train",
        "g": "test",
        "h": "train",
    }


def test_given_splits_are_kept_in_order() -> None:
    items = items_of(["a", "b", "c", "a", "b"])
    parts = divide(items, ["test", "dev", "train", "test", "dev"], "t.jsonl", "line")
    assert {name: [item.line for item in part] for name, part in parts.items()} == {
        "train": [3],
        "dev": [2, 5],
        "test": [1, 4],
    }


def test_splits_on_some_lines_only_are_refused() -> None:
    message = complaint(items_of(["a", "b", "c"]), ["train", None, "test"])
    assert "line 1 gives a split and line 2 does not" in message


@pytest.mark.parametrize("absent", SPLITS)
def test_a_given_split_without_items_is_refused(absent: str) -> None:
    splits: list[str | None] = [split for split in SPLITS if split != absent]
    assert f"no line has the split {absent}" in complaint(items_of(["a", "b"]), splits)


def test_a_group_that_spans_given_splits_is_named_with_both_lines() -> None:
    message = complaint(
        items_of(["a", "shift 2", "c", "shift 2"]), ["train", "dev", "test", "test"]
    )
    assert "the group 'shift 2' spans splits: dev on line 2, test on line 4" in message


def test_a_test_prompt_that_is_also_a_train_prompt_is_a_leak() -> None:
    items = [item("same", 1), item("other", 2), item("same", 3), item("same", 4)]
    message = complaint(items, ["train", "dev", "test", "test"])
    assert "test prompt on line 3 is also the train prompt on line 1 (a leak, and 1 more" in message
    assert "give both the same split" in message


def test_a_leak_between_groups_is_seen_after_hashing_too() -> None:
    chosen = split_groups("abfgh")
    train, test = (next(g for g, s in chosen.items() if s == name) for name in ("train", "test"))
    items = [*items_of(list("abfgh")), item("same", 6, train), item("same", 7, test)]
    message = complaint(items, [None] * len(items))
    assert "line 7 is also the train prompt on line 6" in message
    assert "give both the same group" in message


def test_a_prompt_twice_in_train_and_dev_is_allowed() -> None:
    parts = divide(
        [item("same", 1), item("same", 2), item("t", 3)], ["train", "dev", "test"], "t", "line"
    )
    assert len(parts["dev"]) == 1
