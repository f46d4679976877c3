"""Which rows mean the same token, and which tokenizers do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from flyweight.distill.alignment import align, select, student_rows
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
