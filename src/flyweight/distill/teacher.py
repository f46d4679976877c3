"""What the teacher says about each token: as training rows, in memory (on disk: cache.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from flyweight.distill import trainer
from flyweight.distill.attached import multiplied_in
from flyweight.distill.chunked import top_from_hidden
from flyweight.distill.divergences import Top
from flyweight.distill.drawn import Draw
from flyweight.distill.head import head_of
from flyweight.distill.losses import wanted_hidden
from flyweight.distill.packed import SAID, Columns, pack, unpack
from flyweight.distill.trainer import Row, collate, fast_math
from flyweight.distill.weights import PROMPT_WEIGHT, TokenWeights, weighted_rows
from flyweight.errors import TaskError, TeacherError
from flyweight.placed import placed
from flyweight.progress import bar
from flyweight.tasks.encode import Example

TOP_K = 64
BATCH = 32
TOKENS_AT_ONCE = 2**14  # of a batch, padding included; a longer row stands alone
TITLE = "Recording the teacher"


def answer_rows(examples: Sequence[Example], prompt_weight: float = PROMPT_WEIGHT) -> list[Row]:
    """Training rows: each answer token at weight 1, each prompt token at `prompt_weight`."""
    return weighted_rows(examples, TokenWeights(prompt_weight))


class SaidRow(dict[str, Any]):
    """A training row with the teacher's word on its N wanted tokens, unpacked when asked for.

    `top` float32 [N, k], log-probabilities of the tokens `indices` int32 [N, k], and `tail`
    float32 [N], the log of the others' mass. With `drawn` there is no tail: what was drawn of it
    stands behind the top, [N, k + s], and all of `top` sums to 1.
    """

    def __init__(
        self, row: Row, columns: Mapping[str, np.ndarray], tokens: slice, drawn: bool = False
    ) -> None:
        super().__init__(row)
        self._columns, self._tokens, self._drawn = columns, tokens, drawn
        self._said = SAID[:2] if drawn else SAID

    def __missing__(self, key: str) -> Any:
        if key not in self._said:
            raise KeyError(key)
        return unpack(self._columns, self._tokens, key, drawn=self._drawn)

    def __contains__(self, key: object) -> bool:
        return key in self._said or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]  # a dict's own get does not ask __missing__
        except KeyError:
            return default


def wanted(row: Row) -> int:
    """How many tokens of a row are to be predicted."""
    return int(np.count_nonzero(np.asarray(row["weights"])[1:]))


def record_teacher(teacher: Any, rows: Sequence[Row], top_k: int = TOP_K) -> list[Row]:
    """The rows with the teacher's `top`, `indices` and `tail` added (`SaidRow`)."""
    vocabulary = len(head_of(teacher).weight)
    with bar(TITLE, sum(wanted(row) > 0 for row in rows)) as running:

        def said() -> Iterator[tuple[list[int], Columns]]:
            for places, top in listen(teacher, rows, top_k):
                yield places, pack(top, vocabulary)
                running.advance(len(places))

        return said_rows(rows, laid_out(rows, said()))


@torch.inference_mode()
def listen(
    teacher: Any, rows: Sequence[Row], k: int, *, draw: Draw | None = None
) -> Iterator[tuple[list[int], Top]]:
    """What the teacher says of the wanted tokens of each batch: the rows' places, and its top k.

    Batches are of rows of like length, in an order that the rows decide. The logits are computed
    chunk by chunk. A row without a wanted token is left out. `draw` draws from the tail too. Raises
    TeacherError for logits that are no numbers.
    """
    lengths = [len(row["input_ids"]) if wanted(row) else 0 for row in rows]
    with placed(teacher), multiplied_in(trainer.fast_dtype(teacher.device.type), teacher):
        head = head_of(teacher)
        for places in _batches(lengths):
            batch = collate([_plain(rows[place]) for place in places])
            batch = {name: each.to(teacher.device) for name, each in batch.items()}
            with fast_math(batch["input_ids"]):
                hidden = wanted_hidden(teacher, batch)
                top = top_from_hidden(hidden, head, k, draw=draw)
            yield places, _checked(top)


def _checked(top: Top) -> Top:
    """The same on the CPU; TeacherError where it is no numbers."""
    assert top.tail is not None
    if not bool(top.log_p[:, 0].isfinite().all() & top.tail.isfinite().all()):
        raise TeacherError(
            "the teacher's logits are no numbers (NaN or infinite). Download or save it again."
        )
    drawn = top.drawn and Top(top.drawn.log_p.cpu(), top.drawn.indices.cpu())
    return Top(top.log_p.cpu(), top.indices.cpu(), top.tail.cpu(), drawn=drawn)


def _plain(row: Row) -> Row:
    """What of a row is to be read: also where its documents begin, if it holds several."""
    return {key: row[key] for key in ("input_ids", "weights", "position_ids") if key in row}


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of the rows, none of them empty, the short ones first."""
    taken: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = lengths[place]
        if not longest:
            continue
        if taken and (len(taken) == BATCH or (len(taken) + 1) * longest > TOKENS_AT_ONCE):
            yield taken
            taken = []
        taken.append(place)
    if taken:
        yield taken


def laid_out(rows: Sequence[Row], said: Iterable[tuple[list[int], Columns]]) -> Columns:
    """What was said batch by batch as columns in the order of the rows."""
    counts = [wanted(row) for row in rows]
    starts = [end - count for end, count in zip(np.cumsum(counts), counts, strict=True)]
    columns: Columns = {}
    for places, part in said:
        first = 0
        for place in places:
            count, start = counts[place], starts[place]
            for name, values in part.items():
                if name not in columns:
                    columns[name] = np.empty((sum(counts), *values.shape[1:]), values.dtype)
                columns[name][start : start + count] = values[first : first + count]
            first += count
    if not columns:
        raise TaskError("there is no token to learn. Give items with an answer.")
    return columns


def said_rows(
    rows: Sequence[Row], columns: Mapping[str, np.ndarray], *, drawn: bool = False
) -> list[Row]:
    """Rows whose wanted tokens, end to end, are those of the columns (`SaidRow`)."""
    found: list[Row] = []
    start = 0
    for row in rows:
        end = start + wanted(row)
        found.append(SaidRow(row, columns, slice(start, end), drawn))
        start = end
    return found


__all__ = [
    "PROMPT_WEIGHT",
    "TITLE",
    "TOP_K",
    "SaidRow",
    "answer_rows",
    "laid_out",
    "listen",
    "record_teacher",
    "said_rows",
    "wanted",
]
