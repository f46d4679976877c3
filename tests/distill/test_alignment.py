"""Which rows mean the same token, and which tokenizers do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from flyweight.distill.alignment import align, select, student_rows
from flyweight.distill.divergences import Top, top_of
from flyweight.errors import TeacherError
from flyweight.shrink.retoken import rebuild_tokenizer
from flyweight.shrink.vocabulary import plan_vocabulary


def test_equal_heads_need_nothing() -> None:
    assert align(80, 80) is None
    assert align(80, 80, tokens=80) is None


def test_rows_without_a_token_are_left_out() -> None:
    found = align(80, 96, tokens=75)
    assert found is not None
    assert (found.student, found.teacher, found.compared) == (slice(0, 75), slice(0, 75), 75)
    assert not found.cut


def test_kept_rows_are_taken_where_they_are() -> None:
    rows = torch.tensor([5, -1, 2, 9])
    found = align(6, 12, rows=rows, tokens=10)
    assert found is not None
    assert found.cut
    student, teacher = torch.arange(6.0)[None], torch.arange(12.0)[None]
    assert select(student, found.student).tolist() == [[0, 2, 3]]
    assert select(teacher, found.teacher).tolist() == [[5, 2, 9]]
    assert found.targets(torch.tensor([0, 3, 2])).tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("student", "teacher", "said"),
    [
        (80, 88, {}),
        (4, 8, {"rows": torch.tensor([0, 1, 8])}),
        (4, 8, {"rows": torch.tensor([0, 1, 1])}),
        (4, 8, {"rows": torch.tensor([-1, -1])}),
        (4, 8, {"rows": torch.tensor([0, 1, 2, 3, 4])}),
        (4, 8, {"rows": torch.tensor([0, 6]), "tokens": 5}),
        (8, 8, {"tokens": 9}),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    student: int, teacher: int, said: dict[str, Any]
) -> None:
    with pytest.raises(TeacherError) as error:
        align(student, teacher, **said)
    assert "\n" not in str(error.value)


def record(probabilities: list[float], indices: list[int], tail: float | None = None) -> Top:
    """Of one token, with as many others as there is no word of."""
    log_tail = None if tail is None else torch.tensor([tail]).log()
    return Top(torch.tensor([probabilities]).log(), torch.tensor([indices]), log_tail)


def told(found: Top) -> tuple[list[float], float, float]:
    """Probabilities, the tail's, and the mass."""
    assert found.tail is not None
    assert found.log_mass is not None
    probabilities = [round(each, 5) for each in found.log_p[0].exp().tolist()]
    return probabilities, found.tail.exp().item(), found.log_mass.exp().item()


def test_a_record_of_a_cut_vocabulary_is_renormalised() -> None:
    """Of ten tokens 2, 5 and 7 stay; 5 and 9 are known, and the tail may hold any other."""
    found = align(3, 10, rows=torch.tensor([2, 5, 7]))
    assert found is not None
    top = found.top(record([0.5, 0.3], [9, 5], 0.2))
    assert top.lost is not None
    assert top.lost.tolist() == [[True, False]]
    assert top.indices.tolist() == [[1, 1]]
    probabilities, tail, mass = told(top)
    assert probabilities == pytest.approx([0.0, 0.6])
    assert (tail, mass) == pytest.approx((0.4, 0.5))


def test_there_is_no_tail_where_all_that_the_student_has_is_known() -> None:
    """What the record leaves is then of tokens that were cut."""
    found = align(2, 10, rows=torch.tensor([2, 5]))
    assert found is not None
    probabilities, tail, mass = told(found.top(record([0.5, 0.2, 0.1], [9, 5, 2], 0.2)))
    assert probabilities == pytest.approx([0.0, 2 / 3, 1 / 3], abs=1e-5)
    assert (tail, mass) == pytest.approx((0.0, 0.3))


def test_there_is_no_tail_where_every_token_is_known() -> None:
    """Padding, of which two rows are in the record, takes nothing and leaves nothing."""
    found = align(3, 5, tokens=3)
    assert found is not None
    said = record([0.4, 0.2, 0.1, 0.2, 0.1], [1, 4, 0, 2, 3])
    probabilities, tail, mass = told(found.top(said))
    assert probabilities == pytest.approx([4 / 7, 0, 1 / 7, 2 / 7, 0], abs=1e-5)
    assert (tail, mass) == pytest.approx((0.0, 1.0))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.sets(st.integers(0, 11), min_size=1))
def test_what_is_known_sums_to_the_kept_mass(seed: int, k: int, kept: set[int]) -> None:
    """Against the full distribution; where the tail is of cut tokens too, as much as is known."""
    rows = torch.tensor(sorted(kept))
    found = align(len(rows), 12, rows=rows)
    logits = torch.randn(5, 12, generator=torch.Generator().manual_seed(seed))
    full = logits.double().softmax(-1)
    top = top_of(logits.clone(), k)
    assert found is not None
    changed = found.top(top)
    if len(rows) == 12:  # nothing was cut: nothing is changed
        assert changed is top
        return
    assert changed.log_mass is not None
    assert changed.tail is not None
    assert changed.lost is not None
    mass = changed.log_mass.exp()[:, 0].double()
    parts = changed.log_p.exp().sum(-1) + changed.tail.exp()
    torch.testing.assert_close(parts, torch.ones(5))
    assert (mass >= full[:, rows].sum(-1) - 1e-5).all()
    known = (~changed.lost).sum(-1) == len(rows)
    torch.testing.assert_close(mass[known], full[known][:, rows].sum(-1), rtol=1e-4, atol=1e-6)
    for place in (~changed.lost[known]).nonzero().tolist():
        each = (known.nonzero()[place[0], 0], rows[changed.indices[known][tuple(place)]])
        wanted = full[each] / full[each[0]][rows].sum()
        assert changed.log_p[known][tuple(place)].exp() == pytest.approx(wanted.item(), rel=1e-3)


@pytest.fixture(scope="module")
def teacher(tiny_llama: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(tiny_llama)


def test_a_cut_tokenizer_finds_its_teachers_rows(teacher: Any) -> None:
    used = teacher("the pump is leaking oil")["input_ids"]
    kept = plan_vocabulary(teacher, [used], rows=304).keep
    student = rebuild_tokenizer(teacher, kept, rows=304)
    assert torch.equal(student_rows(student, teacher), kept)
    assert torch.equal(student_rows(teacher, teacher), torch.arange(300))


def changed(teacher: Any, **parts: Any) -> Any:
    """The teacher's tokenizer with parts of its tokenizer.json replaced."""
    described = json.loads(teacher.backend_tokenizer.to_str())
    model = described["model"] | parts.pop("model", {})
    text = json.dumps(described | parts | {"model": model})
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text))


def test_a_tokenizer_that_is_not_the_teachers_is_refused(teacher: Any) -> None:
    described = json.loads(teacher.backend_tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    longest = max(vocabulary, key=len)
    renamed = {"Ġstranger" if token == longest else token: i for token, i in vocabulary.items()}
    merges = [each for each in described["model"]["merges"] if "".join(each) != longest]
    stranger = changed(teacher, model={"vocab": renamed, "merges": merges})
    splitting = changed(teacher, normalizer={"type": "Lowercase"})
    for student, said in ((stranger, "stranger"), (splitting, "splits text")):
        with pytest.raises(TeacherError, match=said) as error:
            student_rows(student, teacher)
        assert "\n" not in str(error.value)
    fewer = changed(teacher, model={"merges": described["model"]["merges"][:-5]})
    with pytest.raises(TeacherError, match="splits text"):
        student_rows(teacher, fewer)
