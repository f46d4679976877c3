"""Whether a student can be taught by a teacher, and which of their tokens are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flyweight.checkpoint import Checkpoint
from flyweight.distill.alignment import Alignment, align, student_rows
from flyweight.errors import TeacherError

_REMEDY = "Use a student that was made from this teacher"


@dataclass(frozen=True)
class Pairing:
    """The `tokenizer` that the student's data are read with, and what of the heads is compared.

    `alignment` is None where both heads have the same rows; `to_teacher` int64 [student's ids], the
    teacher's id of each, is None where those are the same ids.
    """

    tokenizer: Any
    alignment: Alignment | None = None
    to_teacher: Tensor | None = None


def pair_up(teacher: Checkpoint, student: Checkpoint, texts: Sequence[str]) -> Pairing:
    """How a student's tokens are its teacher's; TeacherError where they are not.

    The student has the teacher's tokenizer, which splits `texts` alike, or one with fewer tokens
    (`prune --used-tokens`). Rows of an embedding beyond the tokens are padding, on either side.
    """
    big, small = teacher.tokenizer(), student.tokenizer()
    rows, of_teacher = student.shape.vocabulary, teacher.shape.vocabulary
    tokens = min(max(big.get_vocab().values()) + 1, of_teacher)
    try:
        if big.get_vocab() != small.get_vocab():
            to_teacher = student_rows(small, big)
            alignment = align(rows, of_teacher, rows=to_teacher, tokens=tokens)
            return Pairing(small, alignment, to_teacher)
    except TeacherError as error:
        raise TeacherError(
            f"{student.name}: its tokenizer differs from that of {teacher.name}: {error}"
        ) from error
    if not _split_alike(big, small, texts):
        raise TeacherError(
            f"{student.name}: its tokenizer differs from that of {teacher.name}: it splits the "
            f"answers otherwise. {_REMEDY}."
        )
    if rows < tokens:
        raise TeacherError(
            f"{student.name}: it has {rows} embeddings for {tokens} tokens of {teacher.name}. "
            f"{_REMEDY}."
        )
    same = rows == of_teacher
    return Pairing(big, None if same else align(rows, of_teacher, tokens=tokens))


def _split_alike(one: Any, other: Any, texts: Sequence[str]) -> bool:
    if not texts:  # a tokenizer of nothing fails
        return True
    mine, yours = (
        each(list(texts), add_special_tokens=False)["input_ids"] for each in (one, other)
    )
    return mine == yours


__all__ = ["Pairing", "pair_up"]
