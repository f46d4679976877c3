"""The verb `compare`: two models side by side, item by item where their test items are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def compare(one: Path, other: Path, *, json: bool = False) -> dict[str, Any]:
    """Compare two model folders: size, score, cost, and whether the scores truly differ.

    Where both were judged on the same test items, the ratio of their scores comes with a paired
    two-sided 95 % interval over groups; an interval that holds 1 reads "no measurable difference".

    Args:
        one: A model folder that `make` wrote.
        other: Another one.
        json: Print JSON instead of a table.

    Returns:
        The facts of each, and the ratio other/one with its interval (None on other test items).

    Raises:
        FlyweightError: A folder without a card.
    """
    from json import dumps

    from flyweight.make.side_by_side import compare_folders, show_comparison

    found = compare_folders(Path(one), Path(other))
    if json:
        print(dumps(found, indent=2))
    else:
        show_comparison(found)
    return found
