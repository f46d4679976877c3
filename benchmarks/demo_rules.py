"""Reading work orders with rules, for `demo_baselines.py`: the plant's register is known, the rest
is harvested from train.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product

import numpy as np

from flyweight.demo.phrasing import number_words
from flyweight.demo.plant import ALIASES, CODES

Order = dict[str, str] | None  # None: no work order
Span = tuple[int, int]  # of tokens

NUMBERS = {number_words(n): n for n in range(1, 41)}
NAMES = {kind: kind for kind in CODES} | {alias: kind for kind, alias in ALIASES.items()}
LETTERS = {code: kind for kind, code in CODES.items()}


def _any_of(words: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


ASSET = re.compile(
    rf"\b(?P<code>{_any_of(LETTERS)})[- ]?(?P<at>\d{{1,2}})\b"
    rf"|\b(?P<name>{_any_of(NAMES)}) (?:no\. |number |#)?"
    rf"(?P<number>\d{{1,2}}|{_any_of(NUMBERS)})\b",
    re.IGNORECASE,
)
READING = re.compile(r"\b(\d+(?:\.\d+)?) ?(mm/s|bar|psi|C|F)\b")


class Speller:
    """Puts words that train hardly knows right, where one slip leads to a common one (Norvig)."""

    def __init__(self, texts: Iterable[str], common: int = 6) -> None:
        counts = Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower()))
        self.counts = {word: count for word, count in counts.items() if count >= common}
        self.known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        return re.sub(r"[A-Za-z]{3,}", lambda found: self.word(found[0]), text)

    def word(self, word: str) -> str:
        low = word.lower()
        if low in self.counts or word.isupper():
            return word
        if low not in self.known:
            near = [w for w in _one_slip(low) if w in self.counts]
            self.known[low] = max(near, key=self.counts.__getitem__, default=low)
        return self.known[low]


def _one_slip(word: str) -> set[str]:
    parts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    letters = "abcdefghijklmnopqrstuvwxyz"
    found = {a + b[1:] for a, b in parts if b}
    found |= {a + b[1] + b[0] + b[2:] for a, b in parts if len(b) > 1}
    found |= {a + c + b[1:] for a, b in parts if b for c in letters}
    return found | {a + c + b for a, b in parts for c in letters}


@dataclass
class Parsed:
    """A text as tokens; machines are one token each, a reading another, numbers are alike."""

    tokens: list[str]
    assets: list[tuple[int, str]]  # (place, "pump 12") in the order in which they are named
    readings: list[tuple[int, float, str]]  # (place, value, unit)
    neighbour: Order = None  # the order of the most similar train item
    likely_order: float = 0.0  # linear: above 0 an order is needed
    hits: dict[str, list[tuple[Span, str, float]]] = field(default_factory=dict)
    scoped: dict[str, Parsed] = field(default_factory=dict)  # by machine: only its own clauses


def parse(text: str) -> Parsed:
    named: list[str] = []

    def note(found: re.Match[str]) -> str:
        if found["code"]:
            named.append(f"{LETTERS[found['code'].upper()]} {int(found['at'])}")
        else:
            number = found["number"].lower()
            named.append(f"{NAMES[found['name'].lower()]} {NUMBERS.get(number) or int(number)}")
        return " ASSET "

    read = READING.findall(text)
    text = ASSET.sub(note, READING.sub(" READING ", text))
    text = re.sub(r"\d+(?:\.\d+)?", " 0 ", text)
    tokens = ["^", *re.findall(r"ASSET|READING|\w+|[.,:]", text), "$"]
    tokens = [token if token in ("ASSET", "READING") else token.lower() for token in tokens]
    places = {mark: [i for i, t in enumerate(tokens) if t == mark] for mark in ("ASSET", "READING")}
    return Parsed(
        tokens,
        list(zip(places["ASSET"], named, strict=True)),
        [
            (place, float(value), unit)
            for place, (value, unit) in zip(places["READING"], read, strict=True)
        ],
    )


def own(one: Parsed, asset: str) -> Parsed:
    """The text without the clauses that name only machines other than `asset`."""
    tokens = list(one.tokens)
    bounds = [i for i, token in enumerate(tokens) if token in (".", ",", "^", "$")]
    for start, end in pairwise(bounds):
        named = {name for place, name in one.assets if start < place < end}
        if named and asset not in named:
            tokens[start + 1 : end] = ["."] * (end - start - 1)
    readings = [reading for reading in one.readings if tokens[reading[0]] == "READING"]
    return replace(one, tokens=tokens, readings=readings)


def word_grams(tokens: Sequence[str], widest: int) -> Iterator[tuple[Span, str]]:
    """n-grams of 1 to `widest` tokens inside a clause, with their places."""
    for start in range(len(tokens)):
        for end in range(start + 1, min(start + widest, len(tokens)) + 1):
            if tokens[end - 1] in ".,^$":
                break
            yield (start, end), " ".join(tokens[start:end])


class Dictionary:
    """The n-grams of train that speak for one label, each with its log odds against the rest."""

    def __init__(
        self, parsed: Sequence[Parsed], labels: Sequence[str], purity: float, widest: int = 4
    ) -> None:
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        for one, label in zip(parsed, labels, strict=True):
            for gram in {gram for _, gram in word_grams(one.tokens, widest)}:
                seen[gram][label] += 1
        share = Counter(labels)
        self.weights: dict[str, tuple[str, float]] = {}
        for gram, counts in seen.items():
            label, count = max(counts.items(), key=lambda pair: pair[1] / share[pair[0]])
            total = sum(counts.values())
            if count >= 3 and count / total >= purity:
                base = share[label] / len(labels)
                odds = math.log((count + 0.5) / (total - count + 0.5) * (1 - base) / base)
                self.weights[gram] = (label, odds)
        self.widest = widest

    def hits(self, parsed: Parsed) -> list[tuple[Span, str, float]]:
        """(place, label, log odds) of every known n-gram."""
        found = []
        for span, gram in word_grams(parsed.tokens, self.widest):
            if gram in self.weights:
                found.append((span, *self.weights[gram]))
        return found


def votes(hits: Iterable[tuple[Span, str, float]], how: str = "sum") -> Counter[str]:
    """Each label's log odds: added up, or those of its strongest n-gram."""
    total: Counter[str] = Counter()
    for _, label, odds in hits:
        total[label] = total[label] + odds if how == "sum" else max(total[label], odds)
    return total


class Limits:
    """For each unit, the two cuts through train's readings that make the fewest errors."""

    def __init__(self, parsed: Sequence[Parsed], severities: Sequence[str]) -> None:
        by_unit: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for one, severity in zip(parsed, severities, strict=True):
            for _, value, unit in one.readings[:1]:
                by_unit[unit].append((value, severity))
        self.cuts = {unit: self._fit(pairs) for unit, pairs in by_unit.items()}

    @staticmethod
    def _fit(pairs: list[tuple[float, str]]) -> tuple[float, float, tuple[str, ...]]:
        values = np.array([value for value, _ in pairs])
        names = np.array([severity for _, severity in pairs])
        marks = np.unique(values)
        best = (-1, 0.0, 0.0, ("low", "medium", "high"))
        for order in (("low", "medium", "high"), ("high", "medium", "low")):
            for low, high in product(marks, marks):
                if low < high:
                    said = np.where(values < low, order[0], np.where(values < high, *order[1:]))
                    best = max(best, (int((said == names).sum()), low, high, order))
        return best[1:]

    def __call__(self, value: float, unit: str) -> str:
        low, high, order = self.cuts[unit]
        return order[0] if value < low else order[1] if value < high else order[2]


class Contexts:
    """Which words around a machine say that it is the one meant: log odds, learned from train."""

    def __init__(self, parsed: Sequence[Parsed], meant: Sequence[str]) -> None:
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for one, asset in zip(parsed, meant, strict=True):
            if len(one.assets) > 1:
                for place, name in one.assets:
                    for gram in self._around(one, place):
                        counts[gram][name == asset] += 1
        self.odds = {gram: math.log((yes + 0.5) / (no + 0.5)) for gram, (no, yes) in counts.items()}

    def __call__(self, one: Parsed, place: int) -> float:
        found = [self.odds[gram] for gram in self._around(one, place) if gram in self.odds]
        return sum(found) / max(1, len(found))

    @staticmethod
    def _around(one: Parsed, place: int) -> set[str]:
        """n-grams of up to four tokens, the machine among them."""
        spans = ((start, start + n) for n in (2, 3, 4) for start in range(place - n + 1, place + 1))
        return {
            " ".join(one.tokens[start:end])
            for start, end in spans
            if start >= 0 and end <= len(one.tokens)
        }


def distance(place: int, span: Span) -> int:
    """How many tokens lie between a place and a span; 0 inside."""
    return max(span[0] - place, place - span[1] + 1, 0)
