"""How far do simple methods get on the demo's work orders, with the same 3,000 train items?

Nearest neighbour (TF-IDF over characters and words) copies the order of the most similar train
item. Rules know the plant's register and read everything else off train: which n-grams speak for
a fault, a severity or a failed repair, where a gauge's limits lie, which action follows. Every
choice among rules is made on dev. Rules tell the machine that is meant by its place; the last
column learns from train in which words it is wrapped.

    python benchmarks/demo_baselines.py              # about a minute on one core
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse
from scipy.sparse.linalg import lsqr

from demo_rules import (
    Contexts,
    Dictionary,
    Limits,
    Order,
    Parsed,
    Span,
    Speller,
    distance,
    own,
    parse,
    votes,
)
from flyweight.demo import orders
from flyweight.tasks.statistics import mean_interval

FIELDS = ("asset", "fault", "severity", "action")


@dataclass(frozen=True)
class Said:
    """One item: its text, the order that is wanted, and what the judgement needs."""

    text: str
    order: Order
    slices: tuple[str, ...]
    group: str


def load(split: str, seed: int = 7) -> list[Said]:
    """The items of the demo's own task."""
    return [
        Said(
            item.text,
            None if item.answer == "none" else json.loads(item.answer),
            item.slices,
            item.group.name,
        )
        for item in orders.draw_split(split, seed)
    ]


# ---------------------------------------------------------------- nearest neighbour


def grams_of(text: str) -> Iterator[str]:
    """Character 3- to 5-grams and word 1- and 2-grams."""
    text = text.lower()
    for width in (3, 4, 5):
        yield from (text[i : i + width] for i in range(len(text) - width + 1))
    words = re.findall(r"\w+", text)
    yield from (f"w:{word}" for word in words)
    yield from (f"w:{a} {b}" for a, b in pairwise(words))


class TfIdf:
    """Unit rows of log counts times inverse document frequency, learned from `texts`."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = Counter(gram for text in texts for gram in set(grams_of(text)))
        kept = [gram for gram, count in counts.items() if count > 1]
        self.columns = {gram: i for i, gram in enumerate(kept)}
        self.idf = np.log((1 + len(texts)) / (1 + np.array([counts[g] for g in kept]))) + 1

    def __call__(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """float [n, grams], rows of length 1."""
        rows, columns, values = [], [], []
        for row, text in enumerate(texts):
            for gram, count in Counter(grams_of(text)).items():
                if (column := self.columns.get(gram)) is not None:
                    rows.append(row)
                    columns.append(column)
                    values.append((1 + math.log(count)) * self.idf[column])
        matrix = sparse.csr_matrix((values, (rows, columns)), (len(texts), len(self.columns)))
        norms = sparse.linalg.norm(matrix, axis=1)
        return sparse.diags(1 / np.maximum(norms, 1e-12)) @ matrix


# ---------------------------------------------------------------- filling in an order


@dataclass(frozen=True)
class Rules:
    """Where each field comes from; the product of all of these is tried on dev."""

    asset: str = "first"  # first, last, nearest to the fault's words, context
    fault: str = "sum"  # sum or strongest of the n-grams, near the machine, neighbour
    severity: str = "sum"  # a reading, then n-grams as for the fault; neighbour
    tried: str = "words"  # words, neighbour
    none: str = "linear"  # linear, neighbour
    scope: str = "all"  # of the words that count: all, own (not the clauses of other machines)


PLACES = ("first", "last", "nearest")
CHOICES = {
    "fault": ("sum", "strongest", "near", "neighbour"),
    "severity": ("sum", "strongest", "near", "neighbour"),
    "tried": ("words", "neighbour"),
    "none": ("linear", "neighbour"),
    "scope": ("all", "own"),
}


class Baselines:
    """Everything that train teaches, and the orders that follow from it."""

    def __init__(self, train: Sequence[Said], purity: float = 0.7) -> None:
        self.train = train
        texts = [said.text for said in train]
        self.space = TfIdf(texts)
        self.known = self.space(texts)
        wanted = np.array([1.0 if said.order else -1.0 for said in train])
        self.line = lsqr(self.known, wanted, damp=0.5, iter_lim=100)[0]
        self.speller = Speller(texts)
        parsed = [parse(self.speller(text)) for text in texts]
        asked = [(one, said.order) for one, said in zip(parsed, train, strict=True) if said.order]
        ones, found = [own(one, order["asset"]) for one, order in asked], [o for _, o in asked]
        tried = ["yes" if order["action"] == "escalate" else "no" for order in found]
        silent = [i for i, one in enumerate(ones) if not one.readings]
        self.dictionaries = {
            "fault": Dictionary(ones, [order["fault"] for order in found], purity),
            "severity": Dictionary(
                [ones[i] for i in silent], [found[i]["severity"] for i in silent], purity
            ),
            "tried": Dictionary(ones, tried, purity),
        }
        self.limits = Limits(ones, [order["severity"] for order in found])
        self.actions: dict[tuple[str, str], str] = {}
        for order, failed in zip(found, tried, strict=True):
            if failed == "no":
                self.actions[order["fault"], order["severity"]] = order["action"]
        self.contexts = Contexts([one for one, _ in asked], [order["asset"] for order in found])

    def read(self, items: Sequence[Said]) -> list[Parsed]:
        """What every rule needs to know about each item, worked out once."""
        texts = [said.text for said in items]
        matrix = self.space(texts)
        nearest = np.asarray((matrix @ self.known.T).todense()).argmax(axis=1)
        read = []
        for text, near, likely in zip(texts, nearest, matrix @ self.line, strict=True):
            parsed = parse(self.speller(text))
            known = replace(parsed, neighbour=self.train[near].order, likely_order=float(likely))
            scoped = {name: self._with_hits(own(known, name)) for _, name in known.assets}
            read.append(replace(self._with_hits(known), scoped=scoped))
        return read

    def _with_hits(self, one: Parsed) -> Parsed:
        return replace(one, hits={name: made.hits(one) for name, made in self.dictionaries.items()})

    def order(self, one: Parsed, rules: Rules) -> Order:
        """The order that these rules make of a text."""
        near = one.neighbour or {}
        needed = one.likely_order > 0 if rules.none == "linear" else bool(near)
        if not needed or not one.assets:
            return None
        place, asset = self._asset(one, rules)
        if rules.scope == "own":
            one = one.scoped[asset]
        fault = near.get("fault") if rules.fault == "neighbour" else self._fault(one, rules, place)
        severity = self._severity(one, rules, place)
        failed = near.get("action") == "escalate"
        if rules.tried == "words":
            failed = votes(one.hits["tried"]).get("yes", 0) > 0
        action = "escalate" if failed else self.actions.get((fault or "", severity), "inspect")
        return {"asset": asset, "fault": fault or "", "severity": severity, "action": action}

    def _asset(self, one: Parsed, rules: Rules) -> tuple[int, str]:
        if rules.asset == "context":
            return max(one.assets, key=lambda named: self.contexts(one, named[0]))
        if rules.asset == "nearest" and one.hits["fault"]:
            (start, end), _, _ = max(one.hits["fault"], key=lambda hit: hit[2])
            return min(one.assets, key=lambda named: distance(named[0], (start, end)))
        return one.assets[-1 if rules.asset == "last" else 0]

    def _fault(self, one: Parsed, rules: Rules, place: int) -> str:
        found = self._votes(one.hits["fault"], rules.fault, place)
        return max(found, key=found.__getitem__, default="")

    def _severity(self, one: Parsed, rules: Rules, place: int) -> str:
        if rules.severity == "neighbour":
            return (one.neighbour or {}).get("severity", "medium")
        near = min(one.readings, key=lambda reading: abs(reading[0] - place), default=None)
        if near and near[2] in self.limits.cuts:
            return self.limits(*near[1:])
        found = self._votes(one.hits["severity"], rules.severity, place)
        return max(found, key=found.__getitem__, default="medium")

    @staticmethod
    def _votes(hits: list[tuple[Span, str, float]], how: str, place: int) -> Counter[str]:
        if how == "near":
            hits = [(span, name, odds / (1 + distance(place, span))) for span, name, odds in hits]
        return votes(hits, "strongest" if how == "strongest" else "sum")


# ---------------------------------------------------------------- judging


def right(wanted: Order, said: Order, name: str) -> bool:
    """Whether one field (or "order": whether one is needed at all) is as wanted."""
    if name == "order":
        return (wanted is None) == (said is None)
    return (wanted or {}).get(name) == (said or {}).get(name)


def exact(items: Sequence[Said], said: Sequence[Order]) -> np.ndarray:
    """float [n]: 1 where the whole order is as wanted."""
    return np.array([float(item.order == order) for item, order in zip(items, said, strict=True)])


def every_rule(places: Sequence[str], *, neighbour: bool) -> Iterator[Rules]:
    """All combinations of choices; without `neighbour` only those that look up no train item."""
    options = [[c for c in made if neighbour or c != "neighbour"] for made in CHOICES.values()]
    for place, *rest in product(places, *options):
        yield Rules(place, *rest)


def first_machine(order: Order, one: Parsed) -> Order:
    """An order of another text, for the machine that this text names first."""
    if order is None or not one.assets:
        return order
    return {**order, "asset": one.assets[0][1]}


def best_rules(
    made: Baselines, items: Sequence[Said], read: Sequence[Parsed], choices: Iterable[Rules]
) -> Rules:
    """The rules with the most exact orders on dev."""
    return max(
        choices,
        key=lambda rules: exact(items, [made.order(one, rules) for one in read]).mean(),
    )


def methods(
    made: Baselines, dev: Sequence[Said], read: Sequence[Parsed]
) -> dict[str, Callable[[Parsed], Order]]:
    """Every baseline by its name; what rules it uses is decided on `dev`."""

    chosen: dict[str, Callable[[Parsed], Order]] = {
        "neighbour, copied": lambda one: one.neighbour,
        "neighbour, first machine": lambda one: first_machine(one.neighbour, one),
    }
    searches = {
        "rules": every_rule(PLACES, neighbour=False),
        "neighbour + rules": every_rule(PLACES, neighbour=True),
        "+ learned contexts": every_rule((*PLACES, "context"), neighbour=True),
    }
    for name, choices in searches.items():
        rules = best_rules(made, dev, read, choices)
        Console().print(f"{name}: {rules}")
        chosen[name] = lambda one, rules=rules: made.order(one, rules)
    return chosen


def result_table(items: Sequence[Said], said: dict[str, list[Order]]) -> Table:
    """A column for each method: exact with its interval, then by field and by slice."""
    table = Table(title=f"Demo work orders, {len(items):,} test items")
    table.add_column("%")
    for name in said:
        table.add_column(name, justify="right")
    groups = [item.group for item in items]
    cells = []
    for made in said.values():
        score = mean_interval(exact(items, made), groups)
        cells.append(f"{score.mean:.1%} ({score.low:.1%} to {score.high:.1%})")
    table.add_row("exact", *cells, style="bold", end_section=True)
    for name in ("order", *FIELDS):
        asked = [i for i, item in enumerate(items) if name == "order" or item.order]
        table.add_row(
            "order or none" if name == "order" else name,
            *(
                f"{np.mean([right(items[i].order, made[i], name) for i in asked]):.1%}"
                for made in said.values()
            ),
            end_section=name == FIELDS[-1],
        )
    for part in sorted({name for item in items for name in item.slices}):
        index = [i for i, item in enumerate(items) if part in item.slices]
        table.add_row(
            f"{part} ({len(index)})",
            *(f"{exact(items, made)[index].mean():.1%}" for made in said.values()),
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seed", type=int, default=7, help="of the task (default: the demo's)")
    options = parser.parse_args()
    train, dev, test = (load(split, options.seed) for split in ("train", "dev", "test"))
    made = Baselines(train)
    chosen = methods(made, dev, made.read(dev))
    read = made.read(test)
    said = {name: [method(one) for one in read] for name, method in chosen.items()}
    Console().print(result_table(test, said))


if __name__ == "__main__":
    main()
