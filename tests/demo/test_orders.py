"""The demo's task: splits that share no phrasing, orders that follow from the words."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from flyweight.demo import orders, phrasing
from flyweight.demo.orders import SIZES, Group, Utterance
from flyweight.demo.plant import ACTIONS, FAULTS, GAUGES, RARE_KINDS, SEVERITIES, Asset
from flyweight.tasks.items import Task
from flyweight.tasks.read import read_task

COUNTS = {"train": 3000, "dev": 500, "test": 1000}
Splits = dict[str, list[Utterance]]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return {split: orders.draw_split(split, 7) for split in SIZES}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return read_task(orders.write_task(tmp_path_factory.mktemp("demo") / "orders.jsonl"))


def test_sizes_are_3000_500_and_1000_and_test_has_a_hundred_groups(splits: Splits) -> None:
    assert {split: len(items) for split, items in splits.items()} == COUNTS
    assert len({item.group.name for item in splits["test"]}) >= 100


def test_no_two_splits_share_a_phrasing(splits: Splits) -> None:
    groups = [{item.group.name for item in items} for items in splits.values()]
    assert len(set().union(*groups)) == sum(map(len, groups))


def test_no_prompt_stands_in_two_splits_and_none_twice_in_one(splits: Splits) -> None:
    texts = Counter(item.text for items in splits.values() for item in items)
    assert max(texts.values()) == 1


def test_the_seed_decides_everything(splits: Splits) -> None:
    assert orders.draw_split("dev", 7) == splits["dev"]
    assert orders.draw_split("dev", 8) != splits["dev"]
    first, again, other = (list(islice(orders.stream(seed), 50)) for seed in (1, 1, 2))
    assert first == again != other


def test_a_stream_stays_in_its_split() -> None:
    for split in SIZES:
        assert {item.group.split for item in islice(orders.stream(3, split), 300)} == {split}


def test_every_group_has_one_split_and_a_name_of_its_own() -> None:
    groups = [
        group
        for split in SIZES
        for needs_order in (True, False)
        for group in orders.all_groups(split, needs_order)
    ]
    assert len({group.name for group in groups}) == len(groups)
    remarks = len(phrasing.REMARKS) + 1
    assert len(groups) == remarks * (len(phrasing.CORES) * 6 + len(phrasing.NO_ORDER) * 2)


def test_answers_follow_from_the_plants_table(splits: Splits) -> None:
    for item in splits["test"]:
        if item.order is None:
            assert item.answer == "none"
            continue
        fields = json.loads(item.answer)
        row = ACTIONS[fields["fault"]]
        expected = "escalate" if item.order.tried else row[SEVERITIES.index(fields["severity"])]
        assert fields["action"] == expected


def hints_at_nothing_else(item: Utterance) -> bool:
    """Whether only the order's own machine is given a severity."""
    remark = item.group.remark
    return remark is None or "{say2}" not in phrasing.REMARKS[remark]


READING = re.compile(r"(\d+(?:\.\d+)?) ?(mm/s|bar|psi|C|F)\b")


def test_a_reading_agrees_with_the_severity_that_is_wanted(splits: Splits) -> None:
    gauges = {gauge.unit: (fault, gauge) for fault, made in GAUGES.items() for gauge in made}
    read = 0
    for item in splits["train"]:
        found = READING.findall(item.text)
        if item.order is None or not found or not hints_at_nothing_else(item):
            continue
        [(value, unit)] = found
        fault, gauge = gauges[unit]
        assert (fault, gauge.severity(float(value))) == (item.order.fault, item.order.severity)
        read += 1
    assert read > 50


@pytest.mark.parametrize("remark", range(len(phrasing.REMARKS)))
def test_a_remark_about_another_machine_changes_nothing_in_the_order(remark: int) -> None:
    for seed in range(20):
        plain = orders.say(Group(3, None, "CSR", True), random.Random(seed))
        with_remark = orders.say(Group(3, remark, "CSR", True), random.Random(seed))
        assert plain.order == with_remark.order
        assert len(with_remark.text) > len(plain.text) - 60  # chatter and openers are drawn anew


def test_most_remarks_give_the_other_machine_a_fault_and_a_severity() -> None:
    decoys = [one for one in phrasing.REMARKS if "{say2}" in one]
    assert len(decoys) > len(phrasing.REMARKS) / 2
    assert all("{np2}" in one or "{vp2}" in one for one in decoys)
    # a model reads from left to right: the other machine is named before what is said of it
    assert all(one.index("{B}") < one.index("{say2}") for one in decoys)


def test_a_cue_agrees_with_the_severity_that_is_wanted(splits: Splits) -> None:
    for item in splits["train"]:
        if item.order is None or "typos" in item.slices:
            continue
        # "urgent" also ends "not urgent", and a remark may hold such words by chance: whole clauses
        clauses = re.split(r"(?:\. |, )", item.text.rstrip(".").lower())
        said = {
            severity
            for severity, cues in phrasing.SEVERITY_CUES.items()
            if any(cue.lower() in clauses for cue in cues)
        }
        assert said <= {item.order.severity}, item.text
        if not said and hints_at_nothing_else(item) and not READING.search(item.text):
            assert item.order.severity == "medium", item.text


def test_the_slices_are_there_and_are_what_they_say(splits: Splits) -> None:
    for items in splits.values():
        counts = Counter(name for item in items for name in item.slices)
        assert set(counts) == {"plain", "typos", "long", "no order", "rare asset"}
        assert all(count >= 0.05 * len(items) for count in counts.values())
    for item in splits["test"]:
        assert ("no order" in item.slices) == (item.answer == "none")
        assert ("long" in item.slices) == (len(item.text.split()) >= orders.LONG_WORDS)
        if item.order:
            rare = item.order.asset.kind in RARE_KINDS
            assert ("rare asset" in item.slices) == rare


def test_every_fault_severity_and_kind_is_taught(splits: Splits) -> None:
    found = [item.order for item in splits["train"] if item.order]
    assert {(order.fault, order.severity) for order in found} == {
        (fault, severity) for fault in FAULTS for severity in SEVERITIES
    }
    assert {order.asset.kind for order in found} == orders.CODES.keys()


def test_the_reader_of_tasks_takes_the_file_as_it_is(task: Task, splits: Splits) -> None:
    assert {split: len(getattr(task, split)) for split in SIZES} == COUNTS
    for split, items in splits.items():
        read = getattr(task, split)
        assert [item.messages[-1]["content"] for item in read] == [item.text for item in items]
        assert [item.answer for item in read] == [item.answer for item in items]
        assert [item.slices for item in read] == [item.slices for item in items]
        assert [item.group for item in read] == [item.group.name for item in items]


def test_a_file_written_again_is_the_same(task: Task, tmp_path: Path) -> None:
    assert read_task(orders.write_task(tmp_path / "orders.jsonl")).sha256 == task.sha256


def test_typos_leave_numbers_codes_and_first_letters_alone() -> None:
    rng = random.Random(0)
    text = "Pump 12 and PU-07 leak since yesterday at 93.5 C, conveyor #3 too"
    changed = 0
    for _ in range(200):
        before, after = text.split(" "), orders.add_typos(text, rng).split(" ")
        assert len(before) == len(after)
        for old, new in zip(before, after, strict=True):
            if old != new:
                assert old.isalpha()
                assert len(old) >= 4
                assert new[0] == old[0]
                changed += 1
    assert changed > 100


@pytest.mark.parametrize("seed", range(40))
def test_a_machine_is_named_so_that_it_can_be_told(seed: int) -> None:
    rng = random.Random(seed)
    asset = orders.draw_asset(rng)
    said = orders.say_asset(asset, rng)
    assert _read_back(said) == asset


def _read_back(said: str) -> Asset:
    """The machine of a name, read by a parser of its own."""
    bare = said.removeprefix("the ").replace("no. ", "").replace("number ", "").replace("#", "")
    numbers = {phrasing.number_words(n): n for n in range(1, 41)}
    named = {kind: kind for kind in orders.CODES}
    named |= {alias: kind for kind, alias in orders.ALIASES.items()}
    if code := re.fullmatch(r"([A-Z]{2})[- ]?(\d+)", bare):
        kind = next(kind for kind, letters in orders.CODES.items() if letters == code[1])
        return Asset(kind, int(code[2]))
    name = max((name for name in named if bare.startswith(f"{name} ")), key=len)
    number = bare.removeprefix(f"{name} ")
    return Asset(named[name], numbers.get(number) or int(number))


def test_words_for_numbers_are_english() -> None:
    said = {n: phrasing.number_words(n) for n in (1, 12, 19, 20, 21, 30, 40)}
    assert said == {
        1: "one", 12: "twelve", 19: "nineteen", 20: "twenty", 21: "twenty one", 30: "thirty",
        40: "forty",
    }  # fmt: skip
    assert len({phrasing.number_words(n) for n in range(50)}) == 50


def test_every_template_can_be_filled() -> None:
    rng = random.Random(0)
    for needs_order, cores in ((True, phrasing.CORES), (False, phrasing.NO_ORDER)):
        for core in range(len(cores)):
            for remark in range(len(phrasing.REMARKS)):
                order = "CSR" if needs_order else "CR"
                said = orders.say(Group(core, remark, order, needs_order), rng)
                assert not set("{}") & set(said.text)
                assert said.text.strip() == said.text
