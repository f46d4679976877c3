"""Whether training items give held-out ones away: copies, and texts that are nearly the same.

Texts are equal when they differ in nothing but case, white space and Unicode's spellings. They are
nearly the same when the sets of their character 5-grams overlap by NEAR (Jaccard; Broder 1997). The
search is exact, without sketches: of two sets that overlap by t, any |a| - ceil(t |a|) + 1 members
of one hold a member of the other, so that looking up the rarest ones is enough (Bayardo et al.
2007). What most texts share (an instruction before each question) tells them not apart and is left
out.
"""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from flyweight.errors import TaskError
from flyweight.progress import track
from flyweight.tasks.items import Item

NEAR = 0.8
GRAM = 5  # characters
FEW = 20  # texts, below which nothing is known about what most of them share
LONG = 20_000  # items that take more than a few seconds to compare


@dataclass(frozen=True)
class Copy:
    """A training item that is nearly a held-out one, with their similarity (1: a copy)."""

    train: Item
    held_out: Item
    similarity: float


def normal(text: str) -> str:
    """The text without what makes no other text of it: case, white space, Unicode's spellings."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def asked(item: Item) -> str:
    """All that an item's model is given, normalised: what two copies share."""
    said = [f"{each['role']}: {normal(str(each['content']))}" for each in item.messages]
    return "\n".join(said if item.image is None else [*said, f"image: {item.image}"])


def telling(item: Item) -> str:
    """What is asked without the system's words, which items of one task share."""
    said = [each for each in item.messages if each["role"] != "system"] or item.messages
    return "\n".join(str(each["content"]) for each in said)


def grams(text: str) -> frozenset[str]:
    """The character 5-grams of a normalised text; a shorter text is its own gram."""
    text = normal(text)
    return frozenset(text[i : i + GRAM] for i in range(max(1, len(text) - GRAM + 1)))


class Nearest:
    """Texts that can be asked for the nearest one that overlaps by at least `least`."""

    def __init__(self, texts: Iterable[str] = (), least: float = NEAR) -> None:
        self.least = least
        self._sets: list[frozenset[str]] = []
        self._holders: dict[str, list[int]] = defaultdict(list)
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """One more text; its place is how many were added before."""
        for gram in grams(text):
            self._holders[gram].append(len(self._sets))
        self._sets.append(grams(text))

    def find(self, text: str) -> tuple[int, float] | None:
        """(place, similarity) of the nearest text; None where all are further away."""
        mine = self._without_shared(grams(text))
        rarest = sorted(mine, key=lambda gram: len(self._holders.get(gram, ())))
        enough = len(mine) - math.ceil(self.least * len(mine)) + 1
        places = {place for gram in rarest[:enough] for place in self._holders.get(gram, ())}
        best = max(((self._overlap(mine, place), -place) for place in places), default=(0.0, 0))
        return (-best[1], best[0]) if best[0] >= self.least else None

    def _overlap(self, mine: frozenset[str], place: int) -> float:
        other = self._without_shared(self._sets[place])
        return len(mine & other) / len(mine | other)

    def _without_shared(self, found: frozenset[str]) -> frozenset[str]:
        """The grams that tell this text from most others; all where none would be left."""
        if len(self._sets) < FEW:
            return found
        half = len(self._sets) / 2
        return frozenset(g for g in found if len(self._holders.get(g, ())) <= half) or found


def check_leakage(
    train: Sequence[Item],
    held_out: Sequence[Item],
    train_file: str,
    held_out_file: str,
    unit: str = "line",
) -> None:
    """TaskError, with file and line of both, where a train item asks what a held-out one asks.

    Whatever the answers are, and whatever the case and the white space. `unit` is what a place in
    these files is called.
    """
    known = {asked(item): item for item in reversed(train)}
    leaks = [(known[asked(item)], item) for item in held_out if asked(item) in known]
    if leaks:
        first, second = leaks[0]
        others = f", and {len(leaks) - 1} more like it" if len(leaks) > 1 else ""
        raise TaskError(
            f"{train_file}, {unit} {first.line}: this train item asks the same as the held-out "
            f"item in {held_out_file}, {unit} {second.line} (a leak{others}). Remove one of the "
            "two."
        )


def near_copies(train: Sequence[Item], held_out: Sequence[Item]) -> Iterator[Copy]:
    """The training items that are nearly a held-out item and want the same answer.

    Of those with a picture the words tell nothing: they are left out.
    """
    train = [item for item in train if item.image is None]
    held_out = [item for item in held_out if item.image is None]
    known = Nearest(map(telling, held_out))
    for item in track(train, "Looking for leaks") if len(train) > LONG else train:
        found = known.find(telling(item))
        if found is None:
            continue
        other = held_out[found[0]]
        if (
            item.answer is None
            or other.answer is None
            or normal(item.answer) == normal(other.answer)
        ):
            yield Copy(item, other, found[1])


def leak_warnings(
    train: Sequence[Item], held_out: Sequence[Item], file: str, unit: str = "line"
) -> list[str]:
    """One line that names how many train items are nearly test items, and the nearest; or none."""
    found = list(near_copies(train, held_out))
    if not found:
        return []
    worst = max(found, key=lambda each: each.similarity)
    warning = (
        f"{file}: {len(found)} of the train items are nearly test items with the same answer, "
        f"which lifts the score on test; the nearest stand on {unit}s {worst.train.line} and "
        f"{worst.held_out.line} ({worst.similarity:.0%} alike). Remove one of each pair."
    )
    return [warning]


__all__ = [
    "NEAR",
    "Copy",
    "Nearest",
    "asked",
    "check_leakage",
    "grams",
    "leak_warnings",
    "near_copies",
    "normal",
    "telling",
]
