"""The task as the pipeline needs it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flyweight.make.data import FREE_TOKENS, by_room


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=40), st.integers(16, 2048))
def test_a_long_prompt_shortens_no_answer_but_its_own(lengths: list[int], context: int) -> None:
    prompts = [[0] * length for length in lengths]
    found = {place: room for room, places in by_room(prompts, context) for place in places}
    assert sorted(found) == list(range(len(prompts)))
    for place, length in enumerate(lengths):
        left = max(1, min(FREE_TOKENS, context - length - 1))
        assert left / 2 < found[place] <= left
