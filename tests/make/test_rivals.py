"""Who wins, in words: compared with the rule written out again, over made-up rows."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_card import rivals, row_like, rows, sample_card, verdict

from flyweight.card import Card, Row
from flyweight.make.rivals import order_rows, rivals_sentence, rivals_sentences

SHARE = st.floats(0.5, 1.02)
SIZE = st.integers(1_000, 10**9)
BY = st.sampled_from(["bytes", "latency", "memory"])
BAR = 0.95


def card_of(models: list[Row], by: str = "bytes") -> Card:
    recipe = sample_card().recipe.model_copy(update={"by": by})
    return sample_card(rows=models, recipe=recipe)


def sized(row: Row, share: float, size: int, **changes: Any) -> Row:
    """The row with one size, whatever is measured."""
    return row_like(
        row, share, bytes=size, latency_p50=size / 1e6, peak_memory=size, **changes
    )  # fmt: skip


def chosen_row() -> Row:
    return next(row for row in rows() if row.chosen)


@given(BY, SHARE, SIZE, st.lists(st.tuples(SHARE, SIZE), max_size=3), SHARE, st.booleans())
def test_a_rival_wins_just_when_the_rule_says_so(
    by: str, share: float, size: int, quantised: list[tuple[float, int]], scratch: float, one: bool
) -> None:
    chosen = sized(chosen_row(), share, size)
    teachers = [sized(rivals()[0], *each, bits=8) for each in quantised]
    untouched = rows()[0].model_copy(
        update={"bytes": 10**10, "latency_p50": 1e4, "peak_memory": 10**10}
    )
    others = [sized(rivals()[2], scratch, size)] if one else []
    card = card_of([untouched, chosen, *teachers, *others], by)
    good = [row for row in [untouched, *teachers] if row.dev_low >= BAR]
    wins = chosen.dev_low < BAR  # then the teacher itself passes and it does not
    wins = wins or any(row.bytes < size for row in good)
    wins = wins or any(row.dev_low >= chosen.dev_low for row in others)
    said = rivals_sentence(card)
    assert said.startswith("A rival wins: ") == wins
    assert said.startswith("No rival wins on dev (500 items)") != wins
    assert 1 <= len(rivals_sentences(card)) <= 2
    assert len(re.findall(r"[.!?](?=\s+[A-Z]|$)", said)) == len(rivals_sentences(card))
    assert "nan" not in said
    if one:
        assert "from scratch (the same tokens)" in said


def test_a_model_without_a_better_rival_is_put_beside_each() -> None:
    assert rivals_sentence(sample_card()) == (
        "No rival wins on dev (500 items): the chosen model takes 1.4 MB, the smallest quantised "
        "teacher that passes 5.6 MB (4 bits, 3.9 times as much) and the teacher untouched 18.1 MB "
        "(12.7 times as much). A model of the same shape and bits, trained from scratch (the same "
        "tokens), keeps 70.1 % of the teacher's score on dev (at least 69.1 %) and does not pass."
    )


def test_the_smallest_quantised_teacher_that_passes_is_the_one_that_is_named() -> None:
    said = rivals_sentence(sample_card(rows=[*rows(), *rivals(four=0.93)]))
    assert "teacher that passes 9.8 MB (8 bits, 6.8 times as much)" in said
    eight, four, scratch = rivals(four=0.93)
    bad = row_like(eight, 0.94)
    said = rivals_sentence(sample_card(rows=[*rows(), bad, four, scratch]))
    assert "no quantised teacher passes (the best, at 8 bits: at least 93.0 %)" in said


def test_a_smaller_teacher_that_passes_wins_in_the_jobs_own_measure() -> None:
    eight, four, scratch = rivals()
    fast = four.model_copy(update={"latency_p50": 0.0021})
    models = [*rows(), eight, fast, scratch]
    assert rivals_sentence(card_of(models)).startswith("No rival wins")
    said = rivals_sentence(card_of(models, "latency"))
    assert said.startswith(
        "A rival wins: the teacher at 4 bits passes on dev (500 items) (at least 95.2 %) and "
        "answers in 2.1 ms, the chosen model 7.2 ms."
    )
    assert "does not pass" in said  # the model from scratch, too, is told of


def test_sizes_that_read_the_same_are_told_apart() -> None:
    chosen = chosen_row()
    near = rivals()[1].model_copy(update={"bytes": chosen.bytes - 7})
    said = rivals_sentence(card_of([*rows(), near]))
    assert f"takes {chosen.bytes - 7:,} bytes, the chosen model {chosen.bytes:,} bytes" in said


def test_a_chosen_model_that_does_not_pass_loses_to_what_does() -> None:
    failing = [row if not row.chosen else row_like(row, 0.94) for row in rows()]
    said = rivals_sentence(sample_card(rows=[*failing, *rivals()]))
    assert said.startswith(
        "A rival wins: the chosen model does not pass on dev (500 items) (at least 93.0 %), but "
        "the teacher at 4 bits does (at least 95.2 %) and takes 5.6 MB."
    )
    alone = rivals_sentence(sample_card(rows=failing))
    assert "but the teacher untouched does and takes 18.1 MB" in alone
    bar = verdict(absolute=True, bar=0.999)
    none = rivals_sentence(
        sample_card(verdict=bar, rows=[row.model_copy(update={"dev_low": 0.9}) for row in failing])
    )
    assert none.startswith("Neither the chosen model nor a rival passes on dev")


@pytest.mark.parametrize("share", [0.97, 0.99])
def test_training_from_scratch_to_the_same_share_is_no_gain(share: float) -> None:
    said = rivals_sentence(sample_card(rows=[*rows(), *rivals(scratch=share)]))
    assert said.startswith("A rival wins: a model of the same shape and bits, trained from scratch")
    assert "no measurable gain from cutting and distilling" in said
    less = rivals_sentence(sample_card(rows=[*rows(), *rivals(scratch=0.9605)]))
    assert less.startswith("No rival wins")
    assert "passes too (at least 95.0 %; the chosen model at least 95.5 %)" in less


@pytest.mark.parametrize(
    ("over", "said", "share"),
    [(3.5647, "3.56", 0.7), (1.0019, "1.001", 0.7), (0.9914, "0.991", 0.9605)],
)
def test_a_gain_over_the_same_shape_from_scratch_is_said_with_its_limit(
    over: float, said: str, share: float
) -> None:
    eight, four, scratch = rivals(scratch=share)
    models = [*rows(), eight, four, scratch.model_copy(update={"chosen_over": over})]
    told = rivals_sentence(sample_card(rows=models))
    how = "(95 %, in pairs on dev, where it was chosen)"
    assert f"the chosen model is at least {said} times as good {how}" in told
    assert ("no measurable gain over it" in told) == (over < 1)


def test_cards_without_rivals_say_what_was_measured() -> None:
    assert ", where only the teacher was measured: " in rivals_sentence(sample_card(rows=rows()))
    unchosen = [row.model_copy(update={"chosen": False}) for row in rows()]
    assert rivals_sentence(sample_card(rows=unchosen)) == ""
    assert rivals_sentence(sample_card(rows=rows()[1:])) == ""


def test_rivals_come_first_each_kind_from_the_biggest_down() -> None:
    ordered = order_rows([*reversed(rows()), *reversed(rivals())])
    assert [row.role for row in ordered[:4]] == [
        "teacher", "quantised teacher", "quantised teacher", "from scratch",
    ]  # fmt: skip
    sizes = [row.bytes for row in ordered[4:]]
    assert sizes == sorted(sizes, reverse=True)
