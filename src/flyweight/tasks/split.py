"""Train, dev and test: the splits that were given, or whole groups by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from flyweight.errors import TaskError
from flyweight.tasks.items import Item, default_group, short

SPLITS = ("train", "dev", "test")
SHARES = {"train": (0.0, 0.7), "dev": (0.7, 0.8), "test": (0.8, 1.0)}  # of the hash's range

Parts = dict[str, tuple[Item, ...]]


def divide(
    items: Sequence[Item],
    given: Sequence[str | None],
    file: str,
    unit: str,
    needed: Sequence[str] = SPLITS,
) -> Parts:
    """The items of each split, in their order; `given` holds each item's split or None.

    `file` and `unit` ("line" or "row") are for messages. Raises TaskError where splits are given
    for some items only, one that is `needed` is empty, a group spans splits, a test prompt is also
    a train prompt, or there are fewer than three groups to split.
    """
    named = [split for split in given if split is not None]
    if named and len(named) < len(given):
        with_split = next(item.line for item, split in zip(items, given, strict=True) if split)
        without = next(item.line for item, split in zip(items, given, strict=True) if not split)
        raise TaskError(
            f"{file}: {unit} {with_split} gives a split and {unit} {without} does not. "
            "Give a split everywhere or nowhere."
        )
    splits = named or _hashed(items, file)
    parts: Parts = {
        name: tuple(item for item, split in zip(items, splits, strict=True) if split == name)
        for name in SPLITS
    }
    _refuse_empty({name: parts[name] for name in needed}, file, unit)
    _refuse_leak(parts, file, unit, "split" if named else "group")
    _refuse_straddling(items, splits, file, unit)
    return parts


def split_groups(groups: Iterable[str]) -> dict[str, str]:
    """The split of each of three or more groups, about 70/10/20, from the names alone.

    The same on every machine, whatever the order, and a group stays where it is when others are
    added. Only where chance leaves a split without any group, the nearest group moves there.
    """
    places = {group: _place(group) for group in set(groups)}
    chosen = {group: _at(place) for group, place in places.items()}
    for empty in reversed(SPLITS):
        sizes = {split: list(chosen.values()).count(split) for split in SPLITS}
        if sizes[empty]:
            continue
        movable = [group for group, split in chosen.items() if sizes[split] > 1]
        nearest = min(movable, key=lambda group: (_distance(places[group], empty), group))
        chosen[nearest] = empty
    return chosen


def _hashed(items: Sequence[Item], file: str) -> list[str]:
    groups = {item.group for item in items}
    if len(groups) < len(SPLITS):
        raise TaskError(
            f"{file}: too few groups to split into train, dev and test ({len(groups)}, at least "
            f"{len(SPLITS)} are needed). Add items of other groups, or give each item a split."
        )
    chosen = split_groups(groups)
    return [chosen[item.group] for item in items]


def _place(group: str) -> float:
    """Where a name falls in [0, 1)."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:6], "big") / 2**48


def _at(place: float) -> str:
    return next(split for split, (_, end) in SHARES.items() if place < end)


def _distance(place: float, split: str) -> float:
    start, end = SHARES[split]
    return max(start - place, place - end)


def _refuse_empty(parts: Parts, file: str, unit: str) -> None:
    for name, items in parts.items():
        if not items:
            raise TaskError(
                f"{file}: no {unit} has the split {name}. Add {name} items, or leave out the "
                "field split everywhere and whole groups are split by hash."
            )


def _refuse_leak(parts: Parts, file: str, unit: str, shared: str) -> None:
    trained = {item.asked_sha256: item.line for item in reversed(parts["train"])}
    leaks = [
        (trained[key], item.line) for item in parts["test"] if (key := item.asked_sha256) in trained
    ]
    if leaks:
        train, test = leaks[0]
        others = f", and {len(leaks) - 1} more like it" if len(leaks) > 1 else ""
        raise TaskError(
            f"{file}: the test prompt on {unit} {test} is also the train prompt on {unit} {train} "
            f"(a leak{others}). Remove one of the two, or give both the same {shared}."
        )


def _refuse_straddling(items: Sequence[Item], splits: Sequence[str], file: str, unit: str) -> None:
    first: dict[str, tuple[str, int]] = {}
    for item, split in zip(items, splits, strict=True):
        if item.group == default_group(item.messages):
            continue  # nobody said that equal prompts belong together
        seen, line = first.setdefault(item.group, (split, item.line))
        if seen != split:
            raise TaskError(
                f"{file}: the group {short(item.group)} spans splits: {seen} on {unit} {line}, "
                f"{split} on {unit} {item.line}. Give the whole group one split."
            )
