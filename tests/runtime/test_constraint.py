"""Constraints: what they allow is what JSON schema, `re` and the grammar say."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyweight.errors import OptionError
from flyweight.runtime.constraint import Constraint

SCHEMA = {
    "type": "object",
    "properties": {"pump": {"type": "integer", "maximum": 99}, "state": {"enum": ["ok", "hot"]}},
    "required": ["pump", "state"],
    "additionalProperties": False,
}
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
values = st.fixed_dictionaries(
    {}, optional={"pump": st.integers(-5, 200) | st.text(max_size=2),
                  "state": st.sampled_from(["ok", "hot", "cold"]), "more": st.booleans()},
)  # fmt: skip


@calm
@given(values)
def test_json_is_allowed_as_the_schema_says(value: dict[str, object]) -> None:
    ordered = {key: value[key] for key in ("pump", "state", "more") if key in value}
    valid = jsonschema.Draft202012Validator(SCHEMA).is_valid(ordered)
    text = json.dumps(ordered)
    constraint = Constraint.json_schema(SCHEMA)
    assert constraint.allows(text, whole=True) == valid
    if valid:
        assert all(constraint.allows(text[:n], whole=False) for n in range(len(text)))
        assert not constraint.allows(text[:-1], whole=True)


@calm
@given(st.text("ab12/ \n½", max_size=6))
def test_a_pattern_allows_what_re_matches(text: str) -> None:
    pattern = r"[0-9]{1,2}/[a-b]+(½|\n)?"
    constraint = Constraint.regex(pattern)
    assert constraint.allows(text, whole=True) == bool(re.fullmatch(pattern, text))


def test_tokens_by_their_ids_are_nothing_that_is_read() -> None:
    constraint = Constraint.lark('start: <[8]> "call " /[a-z]+/ <[9]>')
    assert constraint.allows("call pump", whole=True)
    assert not constraint.allows("pump", whole=False)
    assert Constraint.tokens([5, 6]).allows("whatever they are", whole=True)


@pytest.mark.parametrize("text", ["<[5]>", " <[5]> ", "a<[1]>b"])
def test_what_looks_like_a_tokens_id_is_text_in_schemas_and_patterns(text: str) -> None:
    enum = Constraint.json_schema({"enum": [text, "x"], "description": text})
    assert enum.allows(json.dumps(text), whole=True)
    assert not enum.allows('"garbage"', whole=True)
    pattern = Constraint.regex(text.replace("[", "\\[").replace("]", "\\]"))
    assert pattern.allows(text, whole=True)
    assert not pattern.allows("garbage", whole=True)
    one = Constraint.regex("<[5]>")  # one letter of a class
    assert one.allows("<5>", whole=True)
    assert not one.allows("<6>", whole=True)


def test_half_a_character_at_the_end_is_no_offence() -> None:
    assert Constraint.regex("[a-z½]+").allows("ab\ufffd", whole=False)


def test_what_requires_itself_is_refused() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/node"}},
        "required": ["next"],
    }
    with pytest.raises(OptionError, match="requires itself"):
        Constraint.json_schema({"$defs": {"node": node}, "$ref": "#/$defs/node"})
