"""The task as the pipeline needs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.checkpoint import open_checkpoint
from flyweight.errors import OptionError
from flyweight.make.data import FREE_TOKENS, answered, by_room
from flyweight.make.form import form_of
from flyweight.tasks.items import Item, Task
from flyweight.tasks.score import scorer


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=40), st.integers(16, 2048))
def test_a_long_prompt_shortens_no_answer_but_its_own(lengths: list[int], context: int) -> None:
    prompts = [[0] * length for length in lengths]
    found = {place: room for room, places in by_room(prompts, context) for place in places}
    assert sorted(found) == list(range(len(prompts)))
    for place, length in enumerate(lengths):
        left = max(1, min(FREE_TOKENS, context - length - 1))
        assert left / 2 < found[place] <= left


def test_answers_of_the_teacher_that_are_no_labels_cannot_be_scored_by_label(
    tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form, macro = form_of(open_checkpoint(tiny_llama)), scorer("macro-f1")

    def split(*answers: str | None) -> tuple[Item, ...]:
        return tuple(
            Item(({"role": "user", "content": f"valve {n}"},), answer, group=str(n))
            for n, answer in enumerate(answers)
        )

    few = split("hot", "cold", "hot", "cold")
    asked = Task("valves", few, split("hot", None, None), few, "", "")
    told = answered(asked, form, macro, lambda prompts, _: ["hot"] * len(prompts))
    assert [item.answer for item in told["dev"]] == ["hot"] * 3
    assert "valves: dev has 3 items of 1 labels" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(OptionError, match="valves: dev has 3 items, of which 3 have an answer of"):
        answered(asked, form, macro, lambda *_: ["it is cold", "who knows"])
    answered(asked, form, scorer("exact"), lambda *_: ["it is cold", "who knows"])
