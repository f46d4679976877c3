"""Marked stretches always make up the texts that they came from."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from flyweight.make.differences import differences

TEXTS = st.text("ab ,\n", max_size=30)


@given(TEXTS, TEXTS)
@example("a " * 2500, "a " * 1200 + "b " * 1300)
def test_stretches_join_to_the_texts_and_what_is_not_marked_is_common(a: str, b: str) -> None:
    left, right = differences(a, b)
    assert ("".join(text for text, _ in left), "".join(text for text, _ in right)) == (a, b)
    common = ["".join(text for text, lacks in side if not lacks) for side in (left, right)]
    assert common[0] == common[1]
    if a == b:
        assert not any(lacks for _, lacks in left)


def test_only_the_words_that_differ_are_marked() -> None:
    left, right = differences('{"severity":"high","n":12}', '{"severity":"medium","n":12}')
    assert [text for text, lacks in left if lacks] == ["high"]
    assert [text for text, lacks in right if lacks] == ["medium"]
