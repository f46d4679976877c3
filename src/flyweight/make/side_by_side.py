"""Two model folders beside each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flyweight.card import Card, ItemScores
from flyweight.folder import SCORES, read_card, read_scores
from flyweight.make import words
from flyweight.tasks.statistics import paired_ratio

CONFIDENCE = 0.975  # of each limit: 95 % two-sided


def compare_folders(one: Path, other: Path) -> dict[str, Any]:
    """The facts of both, and the paired ratio of their test scores where it can be taken."""
    cards = [read_card(one), read_card(other)]
    names = [str(one), str(other)]
    facts = [_facts(name, card) for name, card in zip(names, cards, strict=True)]
    return {"models": facts, "score": cards[0].task.score, "ratio": _ratio(one, other, cards)}


def _facts(name: str, card: Card) -> dict[str, Any]:
    row = card.student
    return {
        "name": name,
        "teacher": card.teacher.name,
        "task": card.task.name,
        "score": card.task.score,
        "word": card.verdict.word,
        "bar": card.verdict.bar,
        "kept": card.verdict.estimate,
        "kept_low": card.verdict.low,
        "test": card.scores.student.test.model_dump(),
        "bytes": row.bytes,
        "bits": card.bits,
        "parameters": card.parameters,
        "shape": card.shape,
        "latency_p50": row.latency_p50,
        "latency_p95": row.latency_p95,
        "tokens_per_second": row.tokens_per_second,
        "texts_per_second": row.texts_per_second,
        "peak_memory": row.peak_memory,
    }


def _ratio(one: Path, other: Path, cards: list[Card]) -> dict[str, Any] | None:
    """other/one on the same items (one/other where less is better), None where they differ."""
    if not all((folder / SCORES).exists() for folder in (one, other)):
        return None
    first, second = read_scores(one), read_scores(other)
    if cards[0].task.score != cards[1].task.score or sorted(first.items) != sorted(second.items):
        return None
    left, right = first.student, _in_order_of(first, second)
    if first.lower_is_better:
        left, right = right, left
    if not any(left):
        return {"estimate": None, "n": len(left)}
    found = paired_ratio(right, left, first.groups, CONFIDENCE)
    return {
        "estimate": found.estimate,
        "low": found.low,
        "high": found.high if math.isfinite(found.high) else None,  # JSON has no number for it
        "n": found.n,
        "groups": found.groups,
        "differing": found.disagreements,
    }


def _in_order_of(first: ItemScores, second: ItemScores) -> list[float]:
    """The second model's scores in the order of the first one's items (equal items in turn)."""
    places: dict[str, list[float]] = {}
    for item, score in zip(second.items, second.student, strict=True):
        places.setdefault(item, []).append(score)
    return [places[item].pop(0) for item in first.items]


def show_comparison(found: dict[str, Any], console: Console | None = None) -> None:
    """Print both as a table, and what the paired comparison says."""
    console = console or Console(highlight=False, emoji=False)
    one, other = found["models"]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    for each in (one, other):
        table.add_column(escape(each["name"]), justify="right", overflow="fold")
    for title, say in _LINES.items():
        if any(said := (say(one), say(other))):
            table.add_row(title, *said)
    for size, label in words.SIZES.items():
        values = [each["shape"].get(size) for each in (one, other)]
        if values[0] != values[1]:
            table.add_row(label, *(f"{value:,}" if value else "" for value in values))
    console.print(table)
    console.print(_sentence(found), markup=False)


_LINES = {
    "verdict": lambda it: f"{it['word']} at {words.bar_percent(it['bar'])}",
    "of its teacher kept": lambda it: words.percent(it["kept"]),
    "at least": lambda it: words.lower_limit(it["kept_low"]),
    "test score": lambda it: words.score(it["test"]["mean"], it["score"]),
    "size": lambda it: words.size(it["bytes"]),
    "bits": lambda it: str(it["bits"]),
    "parameters": lambda it: words.quantity(it["parameters"]),
    "an answer, median": lambda it: words.seconds(it["latency_p50"]),
    "an answer, 95 %": lambda it: words.seconds(it["latency_p95"]),
    "tokens a second": lambda it: _rate(it["tokens_per_second"]),
    "texts a second": lambda it: _rate(it["texts_per_second"]),
    "peak memory": lambda it: words.size(it["peak_memory"]),
}


def _rate(value: float | None) -> str:
    return "" if value is None else words.rate(value)


def _sentence(found: dict[str, Any]) -> str:
    one, other = (each["name"] for each in found["models"])
    ratio = found["ratio"]
    if ratio is None:
        return "They were not judged on the same items by the same score: no paired comparison."
    if ratio["estimate"] is None:
        return f"One of them scores 0 on all {ratio['n']:,} test items: there is no ratio."
    high = math.inf if ratio["high"] is None else ratio["high"]
    told = (
        f"on the same {ratio['n']:,} test items ({ratio['differing']:,} scored differently; 95 %: "
        f"{words.percent(ratio['low'])} to {words.upper_limit(high)})"
    )
    if ratio["low"] <= 1 <= high:
        return f"No measurable difference in score {told}."
    better = "better" if ratio["low"] > 1 else "worse"
    return (
        f"{other} is {better} than {one}: {words.percent(ratio['estimate'])} of its score {told}."
    )
