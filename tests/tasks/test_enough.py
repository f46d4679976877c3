"""Whether a task can tell at all: the warning, its number, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from flyweight.errors import OptionError, TaskError
from flyweight.tasks.enough import check_evidence, check_labels, groups_needed
from flyweight.tasks.items import Item, Task
from flyweight.tasks.score import scorer
from flyweight.tasks.statistics import absolute_limits, paired_ratio
from flyweight.tasks.verdict import judge

EXACT = scorer("exact")


def items(split: str, sizes: Sequence[int]) -> tuple[Item, ...]:
    return tuple(
        Item(({"role": "user", "content": f"{split} {group} {n}"},), "yes", (), f"{split}{group}")
        for group, size in enumerate(sizes)
        for n in range(size)
    )


def task(dev: Sequence[int], test: Sequence[int]) -> Task:
    return Task("tickets", items("train", [1] * 5), items("dev", dev), items("test", test), "", "")


def word(sizes: Sequence[int], bar: float) -> str:
    """The verdict on a student that agrees with its teacher throughout."""
    codes = np.repeat(np.arange(len(sizes)), sizes).tolist()
    return judge(paired_ratio(np.ones(len(codes)), np.ones(len(codes)), codes), bar).word


@pytest.mark.parametrize("sizes", [[1], [8], [3, 1], [1, 5, 2, 40]], ids=str)
@pytest.mark.parametrize("bar", [0.3, 0.9, 0.95, 0.99])
def test_the_number_is_just_enough_and_one_fewer_is_not(sizes: list[int], bar: float) -> None:
    needed = groups_needed(sizes, bar)
    assert needed is not None
    many = (sizes * needed)[:needed]
    assert word(many, bar) == "passes"
    assert needed == 2 or word(many[:-1], bar) == "cannot tell"


@pytest.mark.parametrize("bar", [0.9, 0.95, 0.99])
def test_of_single_items_it_is_what_wilson_asks(bar: float) -> None:
    # n of n right: Wilson's one-sided 95 % limit is n / (n + z^2)
    assert groups_needed([1], bar) == int(np.ceil(1.6448536**2 * bar / (1 - bar)))


def test_the_warning_names_the_split_and_the_number() -> None:
    [line] = check_evidence(task(dev=[2] * 30, test=[1] * 80), 0.95, EXACT)
    assert "tickets: dev has 30 groups" in line
    [needed] = re.findall(r"at least (\d+)", line)
    assert int(needed) == groups_needed([2], 0.95)
    assert "\n" not in line


def test_an_absolute_bar_asks_for_the_same() -> None:
    for sizes in ([1] * 51, [1] * 52, [4] * 53, [4] * 54):
        codes = np.repeat(np.arange(len(sizes)), sizes).tolist()
        reached = absolute_limits(np.ones(len(codes)), codes).low >= 0.95
        assert (check_evidence(task(sizes, [1] * 80), 0.95, EXACT) == []) == reached


def test_a_task_of_forty_items_is_warned_of_and_not_refused() -> None:
    lines = check_evidence(task(dev=[1] * 4, test=[1] * 8), 0.95, EXACT)
    assert [re.findall(r"(dev|test) has (\d+) groups", line) for line in lines] == [
        [("dev", "4")],
        [("test", "8")],
    ]


@pytest.mark.parametrize(("dev", "test", "named"), [([9], [1, 1], "dev"), ([1, 1], [7], "test")])
def test_a_single_group_is_refused(dev: list[int], test: list[int], named: str) -> None:
    for score in ("exact", "likelihood"):
        with pytest.raises(TaskError, match=f"tickets: all {named} items .* single group") as error:
            check_evidence(task(dev, test), 0.95, scorer(score))
        assert f"Add items of other groups to {named}" in str(error.value)
        assert "\n" not in str(error.value)


def test_no_number_of_groups_shows_that_nothing_is_lost() -> None:
    assert groups_needed([1, 3], 1.0) is None
    lines = check_evidence(task([1, 1], [1, 1]), 1.0, EXACT)
    assert len(lines) == 2
    assert all("more than anybody collects" in line for line in lines)


def test_likelihood_is_not_warned_of_since_few_groups_can_show_it() -> None:
    rng = np.random.default_rng(0)
    teacher = rng.uniform(0.9, 1.1, 12)
    ratio = paired_ratio(teacher, teacher * rng.uniform(0.99, 1.01, 12), range(12))
    assert judge(ratio, 0.95).word == "passes"
    assert check_evidence(task([1] * 12, [1] * 12), 0.95, scorer("likelihood")) == []


def labelled(answers: Sequence[str | None]) -> tuple[Item, ...]:
    return tuple(
        Item(({"role": "user", "content": f"text {n}"},), answer, (), str(n))
        for n, answer in enumerate(answers)
    )


def of_labels(dev: Sequence[str | None], test: Sequence[str | None]) -> Task:
    return Task("tickets", labelled(["lost"]), labelled(dev), labelled(test), "", "")


def test_a_score_by_label_wants_labels() -> None:
    macro, few = scorer("macro-f1"), ["lost", "found "] * 20
    free = [*(f"text {n}" for n in range(37)), "the same", "the same", "the same"]
    for dev, test, where in ((free, few, "dev"), (few, free, "test")):
        with pytest.raises(OptionError, match=f"tickets: {where} has 40 items, of which 37 have"):
            check_evidence(of_labels(dev, test), 0.5, macro)
        check_evidence(of_labels(dev, test), 0.5, EXACT)
    assert check_evidence(of_labels(few, few), 0.5, macro) == []


def test_labels_that_are_chosen_are_labels_however_rare() -> None:
    macro, rare = scorer("macro-f1"), [f"label {n}" for n in range(40)]
    [line] = check_labels(labelled(rare), "tickets: dev", macro, chosen=True)
    assert line.startswith("tickets: dev has 40 items of 40 labels: ")


def test_a_score_by_label_is_warned_of_below_eight_items_of_each_on_average() -> None:
    macro = scorer("macro-f1")
    for number, warned in ((8, False), (7, True)):
        answers = [f" label {n} " for n in range(20)] * number
        lines = check_labels(labelled(answers), "tickets: test", macro)
        assert bool(lines) == warned
        assert check_labels(labelled(answers), "tickets: test", EXACT) == []
    assert "has 140 items of 20 labels: with fewer than 8 of each" in lines[0]
    assert "\n" not in lines[0]
    assert lines[0] in check_evidence(of_labels(answers, answers), 0.5, macro)


def test_a_split_that_the_teacher_is_still_to_answer_is_not_judged_by_the_rest() -> None:
    partly = [f"text {n}" for n in range(3)] + [None] * 72
    assert check_evidence(of_labels(partly, partly), 0.5, scorer("macro-f1")) == []
