"""Which rows of two heads are the same token: padded rows, cut vocabularies, strange tokenizers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flyweight.distill.divergences import NEVER, Top, log1mexp
from flyweight.errors import TeacherError

Columns = slice | Tensor


@dataclass(frozen=True)
class Alignment:
    """What of the student's and the teacher's logits is compared, column by column.

    The other columns of the student are rows that the teacher lacks: they count as impossible, and
    their gradient is 0. Of the teacher's, those below `tokens` are tokens that the student lacks
    (divergences.py says what becomes of their mass), the rest padding without a token, ignored.
    """

    student: Columns
    teacher: Columns
    tokens: int  # rows of the teacher that are tokens
    compared: int  # columns
    places: Tensor | None = None  # int64 [teacher's rows]: where a token is compared, -1 nowhere
    own: Tensor | None = None  # likewise of the student's rows; None: where they are

    @property
    def cut(self) -> bool:
        """Whether the teacher has tokens that the student lacks."""
        return self.tokens > self.compared

    def targets(self, targets: Tensor) -> Tensor:
        """The student's token ids as places among what is compared."""
        return targets if self.own is None else self.own.to(targets.device)[targets]

    def top(self, top: Top) -> Top:
        """A teacher's top k among what is compared: `lost` marked, the rest renormalised.

        A lost token's index is that of another token of its row, 0 where there is none. The tail
        stays one event: which of its tokens were cut is not known.
        """
        if self.places is None:
            return top
        indices = top.indices
        places = self.places.to(indices.device)[indices]
        lost = places < 0
        first = places.gather(-1, (~lost).to(torch.uint8).argmax(-1, keepdim=True)).clamp_min(0)
        real = indices < self.tokens  # padding says nothing
        said, log_p = (top.log_p.masked_fill(~each, NEVER) for each in (real, ~lost))
        rest = log1mexp(top.log_p.logsumexp(-1)) if top.tail is None else top.tail
        # where the record holds every token, or every one that is compared, the rest has none
        rest, tail = (
            rest[:, None].masked_fill(each.sum(-1, keepdim=True) == count, NEVER)
            for each, count in ((real, self.tokens), (~lost, self.compared))
        )
        kept = torch.cat([log_p, tail], -1).logsumexp(-1, keepdim=True)
        every = torch.cat([said, rest], -1).logsumexp(-1, keepdim=True)
        return replace(
            top,
            log_p=log_p - kept,
            indices=torch.where(lost, first, places),
            tail=(tail - kept)[:, 0],
            lost=lost,
            log_mass=kept - every,
        )


def align(
    student: int, teacher: int, *, rows: Tensor | None = None, tokens: int | None = None
) -> Alignment | None:
    """The alignment of heads with `student` and `teacher` rows; None where they are the same.

    Args:
        student: rows of the student's head.
        teacher: rows of the teacher's head.
        rows: int64 [at most `student`]: the teacher's row for each of the student's, -1 for none
            (`student_rows`; for a cut vocabulary the old ids that stay). None: the same ids.
        tokens: how many rows of the teacher are tokens, the rest being padding; None: all.

    Raises TeacherError where the heads differ and neither `rows` nor `tokens` says how, or where
    what they say cannot be.
    """
    real = teacher if tokens is None else tokens
    if rows is None:
        if tokens is None and student != teacher:
            raise TeacherError(
                f"the student has {student} embeddings, the teacher {teacher}. Say which rows of "
                "the teacher the student kept, or how many of them are tokens."
            )
        if student == teacher == real:
            return None
        rows = torch.arange(min(student, real))
    rows, beyond = rows.long().cpu().tensor_split([student])
    here = (rows >= 0).nonzero()[:, 0]
    kept = rows[here]
    # tokenizers may know added tokens beyond either embedding
    wrong = real > teacher or len(kept) == 0 or bool(((beyond >= 0) & (beyond < teacher)).any())
    if wrong or int(kept.max()) >= real or len(kept.unique()) < len(kept):
        raise TeacherError(
            f"{len(rows)} rows of {student} in the student cannot stand for rows of {real} tokens "
            f"in the teacher ({teacher} embeddings). Use a student that was made from this teacher."
        )
    places = torch.full((teacher,), -1).index_put_((kept,), torch.arange(len(kept)))
    own = torch.full((student,), -1).index_put_((here,), torch.arange(len(kept)))
    of_student, of_teacher = _columns(here), _columns(kept)
    same = isinstance(of_teacher, slice) and teacher == len(kept)
    return Alignment(
        of_student,
        of_teacher,
        real,
        len(kept),
        None if same else places,
        None if isinstance(of_student, slice) else own,
    )


def _columns(ids: Tensor) -> Columns:
    """The ids as a slice where they are the first ones, which costs no copy."""
    return slice(0, len(ids)) if torch.equal(ids, torch.arange(len(ids))) else ids


def select(logits: Tensor, columns: Columns) -> Tensor:
    """The columns [n, C] of `logits` [n, V]."""
    if isinstance(columns, slice):
        return logits[:, columns]
    return logits.index_select(1, columns.to(logits.device))


def select_into(out: Tensor, columns: Columns, part: Tensor) -> None:
    """Write `part` [n, C] to the columns of `out` [n, V]."""
    if isinstance(columns, slice):
        out[:, columns] = part
    else:
        out.index_copy_(1, columns.to(out.device), part)


def student_rows(student: Any, teacher: Any) -> Tensor:
    """The teacher's id of each id of the student int64, from their tokenizers; -1 for ids unused.

    TeacherError where the student has a token that the teacher lacks, or splits text otherwise.
    """
    mine, yours = student.get_vocab(), teacher.get_vocab()
    stranger = next((token for token in mine if token not in yours), None)
    if stranger is not None:
        raise TeacherError(
            f"the student's tokenizer has the token {stranger!r}, which the teacher's lacks. "
            "Use a student that was made from this teacher."
        )
    if not _splits_alike(student, teacher):
        raise TeacherError(
            "the student's tokenizer normalises or splits text otherwise than the teacher's. "
            "Use a student that was made from this teacher."
        )
    rows = torch.full((max(mine.values()) + 1,), -1)
    for token, place in mine.items():
        rows[place] = yours[token]
    return rows


def _splits_alike(student: Any, teacher: Any) -> bool:
    """Whether what two fast tokenizers do to text is the same, but for merges that were cut."""
    backends = [getattr(each, "backend_tokenizer", None) for each in (student, teacher)]
    if None in backends:
        return backends == [None, None]
    mine, yours = (json.loads(each.to_str()) for each in backends if each is not None)
    if any(mine[part] != yours[part] for part in ("normalizer", "pre_tokenizer")):
        return False
    if mine["model"].get("type") != yours["model"].get("type"):
        return False
    merges = [{"".join(pair) for pair in each["model"].get("merges", [])} for each in (mine, yours)]
    return merges[0] <= merges[1]


__all__ = ["Alignment", "Columns", "align", "select", "select_into", "student_rows"]
