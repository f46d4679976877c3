"""The model card, read by the hub's own library."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard
from sample_card import HOSTILE, rivals, rows, sample_card

from flyweight.make.model_card import model_card
from flyweight.make.rivals import rivals_sentence


@pytest.mark.parametrize("word", ["passes", "falls short", "cannot tell"])
def test_the_hub_reads_it(word: str) -> None:
    card = sample_card(word)
    read = ModelCard(model_card(card))
    data = read.data.to_dict()
    assert data["base_model"] == "plant-teacher"
    assert data["license"] == "other"
    assert data["library_name"] == "transformers"
    assert data["tags"] == ["flyweight", "gguf", "pruned", "distilled"]
    assert f"**{word.capitalize()}.** {card.verdict.sentence}" in read.text


def test_every_measured_row_and_slice_is_a_row_of_a_table() -> None:
    card = sample_card()
    lines = [line for line in model_card(card).splitlines() if line.startswith("|")]
    assert len(lines) == len(card.rows) + len(card.slices) + 4  # two heads with their rules
    assert len({line.count("|") for line in lines[: len(card.rows) + 2]}) == 1
    assert [line for line in lines if "(chosen)" in line] == [lines[len(card.rows) + 1]]
    assert [line.split(" | ")[0] for line in lines[2:6]] == [
        "| teacher", "| teacher, 8 bits", "| teacher, 4 bits",
        "| from scratch, 4 bits (the same tokens)",
    ]  # fmt: skip


def test_it_says_whether_a_rival_wins() -> None:
    assert rivals_sentence(sample_card()) in ModelCard(model_card(sample_card())).text
    lost = sample_card(rows=[*rows(), *rivals(scratch=0.99)])
    assert "A rival wins: " in model_card(lost)


def test_nothing_that_others_wrote_is_markup() -> None:
    card = sample_card(name=f"{HOSTILE} | # x\n# y", device={"cpu": "[a](javascript:b) | c"})
    prose = "".join(model_card(card).split("~~~")[::2])  # what stands between the code blocks
    assert HOSTILE not in prose
    assert "\\<script\\>" in prose
    assert "\n# y" not in prose
    assert "[a](" not in prose


def test_a_teacher_from_a_folder_does_not_tell_where_it_lay() -> None:
    teacher = sample_card().teacher.model_copy(update={"name": "/home/someone/secret/teacher"})
    text = model_card(sample_card(teacher=teacher))
    assert "/home/someone" not in text
    assert ModelCard(text).data.to_dict()["base_model"] == "teacher"
    hub = sample_card().teacher.model_copy(update={"name": "meta-llama/Llama-3.2-1B"})
    assert ModelCard(model_card(sample_card(teacher=hub))).data.to_dict()["base_model"] == hub.name
