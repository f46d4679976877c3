"""Scores against hand-computed cases, and what must hold for any answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.errors import OptionError
from flyweight.tasks.score import scorer

COMPARING = ("exact", "choice", "json", "contains", "numeric", "f1")

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text("ab", max_size=2), json_values, max_size=4)


@pytest.mark.parametrize("name", COMPARING)
@given(text=st.text() | json_values.map(json.dumps) | st.floats().map(str))
def test_the_wanted_answer_itself_scores_1(name: str, text: str) -> None:
    assert scorer(name)(text, text) == 1


@pytest.mark.parametrize("name", COMPARING)
@given(said=st.text() | json_values.map(json.dumps), wanted=st.text() | json_values.map(json.dumps))
def test_every_score_is_in_range_and_binary_ones_are(name: str, said: str, wanted: str) -> None:
    value = scorer(name)(said, wanted)
    assert value in {0, 1} if scorer(name).binary else 0 <= value <= 1


def test_what_a_scorer_says_of_itself() -> None:
    made = {name: scorer(name) for name in (*COMPARING, "likelihood")}
    assert {n for n, s in made.items() if s.binary} == {"exact", "choice", "contains", "numeric"}
    assert {n for n, s in made.items() if s.teacher_forced} == {"exact"}
    assert {n for n, s in made.items() if s.lower_is_better} == {"likelihood"}
    assert {n for n, s in made.items() if not s.needs_generation} == {"likelihood"}
    assert all(made[name].name == name for name in made)


@pytest.mark.parametrize(
    ("said", "wanted", "expected"),
    [(" none\n", "none", 1), ("None", "none", 0), ("no  ne", "no ne", 0), ("none.", "none", 0)],
)
def test_exact_strips_the_ends_only(said: str, wanted: str, expected: float) -> None:
    assert scorer("exact")(said, wanted) == expected


@pytest.mark.parametrize(
    ("said", "wanted", "expected"),
    [
        ("B", "B", 1),
        ("(b)", "B", 1),
        ("B. because", "b", 1),
        ("**B**: Paris", "(B)", 1),
        ("B", "B) Paris", 1),
        ("Because", "B", 0),
        ("A or B", "B", 0),
        ("", "B", 0),
        ("Yes, it is.", "yes", 1),
        ("Yesterday", "yes", 0),
        ("card_arrival", "card arrival", 1),
        ("card linking", "card arrival", 0),
        ("1", "-1", 0),
        ("\N{MINUS SIGN}1, since", "-1", 1),
        ("1.5", "1", 0),
        ("1. Paris", "1", 1),
        ("?", "!", 0),
    ],
)
def test_choice_reads_the_first_option(said: str, wanted: str, expected: float) -> None:
    assert scorer("choice")(said, wanted) == expected


@pytest.mark.parametrize(
    ("said", "wanted", "expected"),
    [
        ('{"a": 1, "b": 2}', '{"b":2.0,"a":1}', 1),
        ('{"a": 1, "b": 3}', '{"a":1,"b":2}', 1 / 2),
        ('{"a": 1}', '{"a":1,"b":2}', 1 / 2),
        ('{"a": 1, "b": 2, "c": 3}', '{"a":1,"b":2}', 2 / 3),
        ('{"a": {"x": 1, "y": 2}, "b": 0}', '{"a":{"x":1,"y":3},"b":0}', 2 / 3),
        ('{"a": {"b": 1}}', '{"a.b":1}', 0),
        ('{"a": null}', "{}", 0),
        ('{"a": {}}', '{"a":{}}', 1),
        ('{"a": true}', '{"a":1}', 0),
        ('{"a": [1, {"b": 2}]}', '{"a":[1,{"b":2}]}', 1),
        ('{"a": [1, 2]}', '{"a":[2,1]}', 0),
        ("[1, 2]", "[1, 2.0]", 1),
        ("[1]", '{"a":1}', 0),
        ('{"a": 1', '{"a":1}', 0),
        (" none ", "none", 1),  # a wanted answer that is not JSON
        ('{"a": 1}', "none", 0),
        ("NaN", "3", 0),
        ('{"a":' * 600 + "1" + "}" * 600, '{"a":1}', 0),
    ],
)
def test_json_counts_fields(said: str, wanted: str, expected: float) -> None:
    assert scorer("json")(said, wanted) == pytest.approx(expected, abs=0)


@given(json_objects, json_objects)
def test_the_order_of_json_keys_and_the_sides_do_not_matter(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    score = scorer("json")
    turned = json.dumps(dict(reversed(one.items())), indent=1)
    value = score(json.dumps(one), json.dumps(other))
    assert score(turned, json.dumps(other)) == value
    assert score(json.dumps(other), turned) == value


@pytest.mark.parametrize(
    ("said", "wanted", "expected"),
    [
        ("It is the  MAIN\npump.", "main pump", 1),
        ("STRASSE", "straße", 1),
        ("main  motor", "main pump", 0),
        ("anything", "", 0),
    ],
)
def test_contains_folds_case_and_space(said: str, wanted: str, expected: float) -> None:
    assert scorer("contains")(said, wanted) == expected


@given(st.text(), st.text(min_size=1), st.text())
def test_contains_finds_what_is_there(before: str, wanted: str, after: str) -> None:
    if wanted.strip():
        assert scorer("contains")(f"{before} {wanted} {after}", wanted) == 1


@pytest.mark.parametrize(
    ("said", "wanted", "expected"),
    [
        ("18.0", "18", 1),
        ("So 3 + 15 = 18.", "18", 1),
        ("1,234", "1234", 1),
        ("$1,234,567.50", "1234567.5", 1),
        ("1,2,3", "3", 1),
        ("1,2345", "2345", 1),
        ("-5", "5", 0),
        ("\N{MINUS SIGN}5 °C", "-5", 1),
        ("-$5", "-5", 1),
        ("3-5", "5", 1),
        ("18%", "18", 1),
        ("18 %", "18%", 1),
        ("0.18", "18%", 0),
        (".5", "0.5", 1),
        ("it is...18", "18", 1),
        ("18 on P3", "18", 1),
        ("18kg", "18", 1),
        ("1.8e1", "18", 1),
        ("#### 18", "because 9 + 9\n#### 18", 1),
        ("1000001", "1000000", 1),
        ("1000002", "1000000", 0),
        ("-0", "0", 1),
        ("0.0000001", "0", 0),
        ("9" * 5000, "1", 0),
        ("no idea", "18", 0),
        ("18", "none", 0),
        ("none", "none", 1),
    ],
)
def test_numeric_compares_the_last_number(said: str, wanted: str, expected: float) -> None:
    assert scorer("numeric")(said, wanted) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numeric_reads_numbers_as_python_writes_them(number: float) -> None:
    assert scorer("numeric")(f"It is {number}.", repr(number)) == 1
    if 1e-5 < abs(number) < 1e15:
        assert scorer("numeric")(f"{number:,.12f}", repr(number)) == 1


@pytest.mark.parametrize(
    ("said", "wanted", "expected"),
    [
        # By hand from the definition: precision and recall over the multiset of tokens.
        ("The Denver Broncos!", "denver broncos", 1),
        ("Broncos", "Denver Broncos", 2 / 3),  # precision 1, recall 1/2
        ("in the late 19th century", "19th century", 2 / 3),  # precision 2/4, recall 1
        ("gold gold silver", "gold", 1 / 2),  # a token counts once: 1/3 and 1
        ("gold gold", "gold gold silver", 4 / 5),  # 1 and 2/3
        ("U.S.", "us", 1),
        ("silver", "gold", 0),
        ("a", "the", 1),  # nothing is left of either
        ("", "gold", 0),
    ],
)
def test_f1_on_hand_computed_cases(said: str, wanted: str, expected: float) -> None:
    assert scorer("f1")(said, wanted) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.sampled_from("pqrs")), st.lists(st.sampled_from("pqrs")), st.randoms())
def test_f1_hears_neither_order_nor_sides(said: list[str], wanted: list[str], rng: Any) -> None:
    shuffled = rng.sample(said, len(said))
    value = scorer("f1")(" ".join(said), " ".join(wanted))
    assert scorer("f1")(" ".join(wanted), " ".join(shuffled)) == value


def test_likelihood_compares_no_text() -> None:
    with pytest.raises(OptionError, match="bits per byte"):
        scorer("likelihood")("a", "a")


@pytest.mark.parametrize("name", ["exat", "", "Exact", "bleu"])
def test_an_unknown_score_lists_the_known(name: str) -> None:
    with pytest.raises(OptionError, match=r"no such score\. Use one of exact, choice, json, con"):
        scorer(name)


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder of a user who keeps scores of his own there."""
    (tmp_path / "fw_user_score.py").write_text(
        "from math import nan\n"
        "limit = 3\n"
        "def half(said, wanted): return said == wanted or 0.5\n"
        "def two(said, wanted): return 2\n"
        "def nothing(said, wanted): pass\n"
        "def word(said, wanted): return '0.5'\n"
        "def unsure(said, wanted): return nan\n"
        "def fails(said, wanted): raise ValueError('first\\nsecond')\n"
        "def one_side(said): return 1\n"
    )
    (tmp_path / "fw_user_broken.py").write_text("def f(:\n")
    (tmp_path / "fw_user_needs.py").write_text("import fw_user_not_there\n")
    (tmp_path / "fw_user_exits.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("user_folder")
def test_a_users_own_function_is_used() -> None:
    before = list(sys.path)
    own = scorer("fw_user_score:half")
    assert sys.path == before
    assert (own("a", "a"), own("a", "b")) == (1.0, 0.5)
    assert (own.name, own.binary, own.needs_generation) == ("fw_user_score:half", False, True)


def test_a_function_may_come_from_the_python_path() -> None:
    assert scorer("operator:eq")("a", "a") == 1
    assert scorer("os.path:join").name == "os.path:join"


@pytest.mark.usefixtures("user_folder")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fw_user_absent:f", "no module fw_user_absent in "),
        ("fw_user_score:absent", "no function absent in "),
        ("fw_user_score:limit", "no function limit in "),
        ("fw_user_score:one_side", "it cannot be called (too many positional arguments)"),
        ("fw_user_broken:f", "importing fw_user_broken failed (SyntaxError"),
        ("fw_user_needs:f", "importing fw_user_needs failed (ModuleNotFoundError"),
        ("fw_user_exits:f", "importing fw_user_exits failed (SystemExit: 3)"),
        ("scores/mine.py:f", "not of the form module:function"),
        ("mine:", "not of the form module:function"),
        (":f", "not of the form module:function"),
    ],
)
def test_a_function_that_is_not_there_is_named(name: str, expected: str) -> None:
    before = list(sys.path)
    with pytest.raises(OptionError) as caught:
        scorer(name)
    assert sys.path == before
    assert str(caught.value).startswith(f"--score {name}: {expected}")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("user_folder")
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("two", "it gave 2. It must give a number from 0 to 1"),
        ("nothing", "it gave None"),
        ("word", "it gave '0.5'"),
        ("unsure", "it gave nan"),
        ("fails", "it failed on an answer (ValueError: first second)"),
    ],
)
def test_a_function_that_breaks_its_contract_is_named(function: str, expected: str) -> None:
    own = scorer(f"fw_user_score:{function}")
    with pytest.raises(OptionError) as caught:
        own("said", "wanted")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
