"""The work-order job: what an operator types or says, and the exact order that must follow.

Every item belongs to a phrasing group (`phrasing.py`), and a group to one split, by hash: the
teacher and the train items never see a phrasing of dev or test.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

from flyweight.demo import phrasing
from flyweight.demo.plant import (
    ALIASES,
    CODES,
    COMMON_KINDS,
    FAULTS,
    GAUGES,
    RARE_KINDS,
    SEVERITIES,
    Asset,
    WorkOrder,
)

SYSTEM = "Write the work order."
SHARE_NO_ORDER = 0.18
SHARE_RARE = 0.08
SHARE_TYPOS = 0.25
SHARE_UNSAID = 0.3  # of medium severities: nothing said means medium
LESSON_SLIPS, TASK_SLIPS = 3, 2  # at most, in a text with typos
LONG_WORDS = 40
CORRECTIONS = ("no sorry", "sorry I mean", "no wait")  # what a wrong machine is taken back with
PLAIN_WEIGHT = 5.0  # of phrasings without a remark, in lessons

SIZES = {"train": (1000, 3), "dev": (100, 5), "test": (125, 8)}  # groups, items a group
ORDERS = ("CSR", "RCS", "SCR", "CRS", "RSC", "SRC")  # core, severity, remark
NEIGHBOURS = dict(zip("abcdefghijklmnopqrstuvwxyz", "snvfrghjkkljbmpoaeetzivwcx", strict=True))


@dataclass(frozen=True)
class Group:
    """A phrasing: which core sentence, which remark (None: none), clauses in which order."""

    core: int
    remark: int | None
    order: str
    needs_order: bool

    @property
    def name(self) -> str:
        kind = "order" if self.needs_order else "none"
        remark = "-" if self.remark is None else self.remark
        return f"{kind}/{self.core}/{remark}/{self.order}"

    @property
    def split(self) -> str:
        """The split that this phrasing belongs to, from its name alone (2:1:7)."""
        bucket = int(hashlib.sha256(self.name.encode()).hexdigest()[:8], 16) % 10
        return "test" if bucket < 2 else "dev" if bucket < 3 else "train"


@dataclass(frozen=True)
class Utterance:
    """One operator's message with the work order it asks for (None: no order)."""

    text: str
    order: WorkOrder | None
    group: Group
    slices: tuple[str, ...]

    @property
    def answer(self) -> str:
        return self.order.to_json() if self.order else "none"


def all_groups(split: str, needs_order: bool) -> list[Group]:
    """Every phrasing of a split, in a fixed order."""
    cores = phrasing.CORES if needs_order else phrasing.NO_ORDER
    orders = ORDERS if needs_order else ("CR", "RC")
    remarks: list[int | None] = [None, *range(len(phrasing.REMARKS))]
    groups = (
        Group(core, remark, order, needs_order)
        for core in range(len(cores))
        for remark in remarks
        for order in orders
    )
    return [group for group in groups if group.split == split]


def draw_asset(rng: random.Random) -> Asset:
    kinds = RARE_KINDS if rng.random() < SHARE_RARE else COMMON_KINDS
    return Asset(rng.choice(kinds), rng.randint(1, 40))


def draw_order(rng: random.Random) -> WorkOrder:
    return WorkOrder(
        draw_asset(rng), rng.choice(FAULTS), rng.choice(SEVERITIES), rng.random() < 0.1
    )


def say_asset(asset: Asset, rng: random.Random) -> str:
    """One of the ways in which people name a machine: "pump no. 12", "PU12", "the belt three"."""
    kind, number = asset.kind, asset.number
    form = rng.random()
    if form < 0.12:
        return f"{CODES[kind]}{rng.choice(('', '-', ' '))}{number}"
    if rng.random() < 0.3:
        kind = ALIASES.get(kind, kind)
    if form < 0.30:
        said = f"{kind} {phrasing.number_words(number)}"
    else:
        said = f"{kind} {rng.choice(('', '', '', 'no. ', 'number ', '#'))}{number}"
    return f"the {said}" if rng.random() < 0.2 else said


def say_reading(fault: str, severity: str, rng: random.Random) -> str:
    """A reading that means `severity` for `fault`, with its unit, written in one of many ways."""
    gauge = rng.choice(GAUGES[fault])
    while True:
        value = round(rng.uniform(gauge.lowest, gauge.highest), gauge.decimals)
        if gauge.severity(value) == severity:
            break
    written = f"{value:.{gauge.decimals}f}{rng.choice((' ', ''))}{gauge.unit}"
    return rng.choice(phrasing.READINGS[fault]).format(v=written)


def say_severity(fault: str, severity: str, rng: random.Random) -> str:
    """A clause that tells the severity of a fault: a reading, where there is a gauge, or a cue."""
    if fault in GAUGES and rng.random() < 0.6:
        return say_reading(fault, severity, rng)
    return rng.choice(phrasing.SEVERITY_CUES[severity])


def fill(template: str, rng: random.Random, **known: str) -> str:
    """A template with its slots filled; names, places and times are drawn where not given."""
    return template.format(
        when=rng.choice(phrasing.WHEN),
        where=rng.choice(phrasing.WHERE),
        who=rng.choice(phrasing.WHO),
        hour=rng.randint(6, 22),
        count=rng.randint(50, 999),
        shift=rng.randint(1, 3),
        **known,
    )


def fault_words(fault: str, rng: random.Random, suffix: str = "") -> dict[str, str]:
    return {
        f"np{suffix}": rng.choice(phrasing.FAULT_NOUNS[fault]),
        f"vp{suffix}": rng.choice(phrasing.FAULT_PREDICATES[fault]),
        f"bare{suffix}": phrasing.BARE[fault],
    }


def add_typos(text: str, rng: random.Random, most: int = LESSON_SLIPS) -> str:
    """One to `most` slips in words of four letters or more; numbers and codes stay as they are."""
    words = text.split(" ")
    long_words = [i for i, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    for i in rng.sample(long_words, min(len(long_words), rng.randint(1, most))):
        word = words[i]
        at = rng.randrange(1, len(word) - 1)
        slip = rng.randrange(4)
        if slip == 0:
            words[i] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif slip == 1:
            words[i] = word[:at] + word[at + 1 :]
        elif slip == 2:
            words[i] = word[:at] + word[at] + word[at:]
        else:
            words[i] = word[:at] + NEIGHBOURS.get(word[at], word[at]) + word[at + 1 :]
    return " ".join(words)


def join_clauses(clauses: list[str], rng: random.Random) -> str:
    """Clauses as one message, punctuated and capitalised as carelessly as people do."""
    careful = rng.random() < 0.5
    text = clauses[0]
    for clause in clauses[1:]:
        if rng.random() < 0.5:
            text += ". " + (clause[0].upper() + clause[1:] if careful else clause)
        else:
            text += ", " + clause
    if careful:
        text = text[0].upper() + text[1:] + "."
    return text


def say(group: Group, rng: random.Random, slips: int = LESSON_SLIPS) -> Utterance:
    """An utterance of this phrasing, with its order: everything but the group is drawn.

    A text with typos has at most `slips`: lessons are more careless than the task.
    """
    order = draw_order(rng)
    other = draw_asset(rng)
    while other == order.asset:
        other = draw_asset(rng)
    asset_said, other_said = say_asset(order.asset, rng), say_asset(other, rng)
    if rng.random() < 0.06:
        asset_said = f"{other_said}, {rng.choice(CORRECTIONS)}, {asset_said}"
        other_said = say_asset(draw_asset(rng), rng)
    other_fault = rng.choice(FAULTS)
    known = fault_words(order.fault, rng) | fault_words(other_fault, rng, "2")
    known |= {"A": asset_said, "B": other_said}
    known["say2"] = say_severity(other_fault, rng.choice(SEVERITIES), rng)

    core = (phrasing.CORES if group.needs_order else phrasing.NO_ORDER)[group.core]
    clauses = {"C": fill(core, rng, **known)}
    if group.remark is not None:
        clauses["R"] = fill(phrasing.REMARKS[group.remark], rng, **known)
    if order.severity != "medium" or rng.random() >= SHARE_UNSAID:
        clauses["S"] = say_severity(order.fault, order.severity, rng)
    spoken = [clauses[key] for key in group.order if key in clauses]
    if order.tried and group.needs_order:
        spoken.insert(rng.randint(1, len(spoken)), rng.choice(phrasing.TRIED))
    for _ in range(rng.choice((0, 0, 0, 1, 1))):
        spoken.insert(rng.randint(0, len(spoken)), fill(rng.choice(phrasing.CHATTER), rng))
    if rng.random() < 0.35:
        spoken.insert(0, fill(rng.choice(phrasing.OPENERS), rng))
    text = join_clauses(spoken, rng)

    slices = []
    if rng.random() < SHARE_TYPOS:
        text = add_typos(text, rng, slips)
        slices.append("typos")
    if len(text.split()) >= LONG_WORDS:
        slices.append("long")
    if not group.needs_order:
        slices.append("no order")
    if order.asset.kind in RARE_KINDS:
        slices.append("rare asset")
    return Utterance(text, order if group.needs_order else None, group, tuple(slices or ["plain"]))


def draw_group(rng: random.Random, split: str, needs_order: bool) -> Group:
    """A phrasing for a lesson: those without a remark come more often than their number."""
    groups, weights = _weighted_groups(split, needs_order)
    return rng.choices(groups, cum_weights=weights)[0]


@cache
def _weighted_groups(split: str, needs_order: bool) -> tuple[list[Group], list[float]]:
    groups = all_groups(split, needs_order)
    weights = (PLAIN_WEIGHT if group.remark is None else 1.0 for group in groups)
    return groups, list(accumulate(weights))


def stream(seed: int, split: str = "train") -> Iterator[Utterance]:
    """Endless utterances of a split's phrasings, reproducible from the seed."""
    rng = random.Random(f"{seed}/{split}")
    while True:
        needs_order = rng.random() >= SHARE_NO_ORDER
        yield say(draw_group(rng, split, needs_order), rng)


def draw_split(split: str, seed: int) -> list[Utterance]:
    """The task's items of one split: SIZES groups, as many items of each."""
    rng = random.Random(f"{seed}/task/{split}")
    count, each = SIZES[split]
    of_none = round(count * SHARE_NO_ORDER)
    groups = rng.sample(all_groups(split, True), count - of_none)
    groups += rng.sample(all_groups(split, False), of_none)
    items: list[Utterance] = []
    seen: set[str] = set()
    for group in groups:
        wanted = len(items) + each
        while len(items) < wanted:
            utterance = say(group, rng, TASK_SLIPS)
            if utterance.text not in seen:
                seen.add(utterance.text)
                items.append(utterance)
    rng.shuffle(items)
    return items


def write_task(path: Path, seed: int = 7) -> Path:
    """Write the demo's task as JSONL (3,000 train, 500 dev, 1,000 test); returns `path`."""
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": item.text},
                ],
                "answer": item.answer,
                "slice": list(item.slices),
                "group": item.group.name,
                "split": split,
            },
            ensure_ascii=False,
        )
        for split in SIZES
        for item in draw_split(split, seed)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
