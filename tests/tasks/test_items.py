"""What a record must say to become an item, and what its hashes are sensitive to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.errors import TaskError
from flyweight.tasks.items import Item, content_sha256, item_from, prompt_sha256

PLACE = "tickets.jsonl, line 17"


def item(prompt: str, answer: str | None, line: int = 0) -> Item:
    return Item(({"role": "user", "content": prompt},), answer, line=line)


def test_a_prompt_becomes_one_user_message() -> None:
    made = item_from({"prompt": "Pump leaks", "answer": "none", "id": 3}, 17, PLACE)
    assert made.messages == ({"role": "user", "content": "Pump leaks"},)
    assert (made.answer, made.slices, made.line) == ("none", (), 17)


def test_text_is_a_synonym_of_prompt() -> None:
    assert item_from({"text": "hi"}, 1, PLACE) == item_from({"prompt": "hi"}, 1, PLACE)


def test_a_chat_keeps_its_roles_and_what_templates_read() -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Speed?"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "read"}]},
        {"role": "tool", "content": "12", "name": None},
    ]
    messages = item_from({"messages": chat}, 1, PLACE).messages
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]
    assert messages[2]["tool_calls"] == [{"name": "read"}]
    assert "name" not in messages[3]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("as it is ", "as it is "),
        ("", ""),
        (None, None),
        (18, "18"),
        (-0.5, "-0.5"),
        (True, "true"),
        ({"asset": "Öl", "n": [1, None]}, '{"asset":"Öl","n":[1,null]}'),
        ([], "[]"),
    ],
)
def test_answers_become_compact_text(answer: object, text: str | None) -> None:
    assert item_from({"prompt": "p", "answer": answer}, 1, PLACE).answer == text


@pytest.mark.parametrize(
    ("given_slice", "slices"),
    [("typos", ("typos",)), (["a", "b", "a"], ("a", "b")), ("", ()), ([], ())],
)
def test_slices_are_one_name_or_several(given_slice: object, slices: tuple[str, ...]) -> None:
    assert item_from({"prompt": "p", "slice": given_slice}, 1, PLACE).slices == slices


def test_without_a_group_equal_prompts_belong_together() -> None:
    one, same, other = (item_from({"prompt": text}, 1, PLACE).group for text in ("a", "a", "b"))
    assert one == same != other
    assert item_from({"prompt": "a", "group": 7}, 1, PLACE).group == "7"
    assert item_from({"prompt": "a", "group": ""}, 1, PLACE).group == one


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"question": "?", "answer": "x"}, "neither prompt nor messages (found: 'question'"),
        ({}, "neither prompt nor messages (found: nothing)"),
        ({"prompt": None}, "neither prompt nor messages"),
        ({"prompt": "p", "messages": [{"role": "user", "content": "p"}]}, "both prompt and"),
        ({"prompt": "p", "text": "p"}, "both prompt and text"),
        ({"prompt": 3}, "prompt must be text, not a number"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": "\ud800"}, "half a surrogate pair"),
        ({"messages": []}, "messages must be a list"),
        ({"messages": "hi"}, "messages must be a list"),
        ({"messages": ["hi"]}, "message 1 is text"),
        ({"messages": [{"role": "bot", "content": ""}]}, "message 1 has the role 'bot'"),
        ({"messages": [{"role": ["user"], "content": ""}]}, "message 1 has the role ['user']"),
        ({"messages": [{"role": "user"}]}, "the content of message 1 must be text"),
        ({"messages": [{"role": "user", "content": "", "name": "\udc00"}]}, "surrogate"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "the last message is the assistant's",
        ),
        ({"prompt": "p", "answer": float("inf")}, "answer holds what JSON cannot say"),
        ({"prompt": "p", "answer": b"bytes"}, "answer holds what JSON cannot say"),
        ({"prompt": "p", "slice": 3}, "slice is a number"),
        ({"prompt": "p", "slice": ["a", 3]}, "slice must be text, not a number"),
        ({"prompt": "p", "group": True}, "group must be text, not true or false"),
        ({"prompt": "p", "group": ["a"]}, "group must be text, not a list"),
    ],
)
def test_a_broken_record_is_named(record: dict[str, object], complaint: str) -> None:
    with pytest.raises(TaskError) as caught:
        item_from(record, 17, PLACE)
    message = str(caught.value)
    assert message.startswith(f"{PLACE}: ")
    assert complaint in message
    assert "\n" not in message
    assert len(message) < 400


def test_a_long_value_does_not_flood_the_message() -> None:
    with pytest.raises(TaskError) as caught:
        item_from({"messages": [{"role": "x" * 10_000, "content": ""}]}, 17, PLACE)
    assert len(str(caught.value)) < 300


@given(st.lists(st.tuples(st.text("ab", max_size=3), st.none() | st.text("ab")), max_size=6))
def test_the_content_hash_knows_contents_and_not_their_order(
    pairs: list[tuple[str, str | None]],
) -> None:
    items = [item(prompt, answer, line) for line, (prompt, answer) in enumerate(pairs)]
    assert content_sha256(items) == content_sha256(reversed(items))
    assert content_sha256(items) != content_sha256([*items, item("c", None)])


def test_the_content_hash_tells_no_answer_from_an_empty_one() -> None:
    hashes = {content_sha256([item("p", answer)]) for answer in (None, "", "null")}
    assert len(hashes) == 3


@given(st.dictionaries(st.text(max_size=4), st.text(max_size=4), min_size=2))
def test_the_prompt_hash_does_not_hear_the_order_of_keys(message: dict[str, str]) -> None:
    turned = dict(reversed(message.items()))
    assert json.dumps(message) != json.dumps(turned)
    assert prompt_sha256([message]) == prompt_sha256([turned])


def test_with_answer_changes_nothing_else() -> None:
    asked = item("p", None, line=4)
    assert asked.with_answer("yes") == item("p", "yes", line=4)
    assert asked.answer is None
