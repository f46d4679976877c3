"""What a teacher is to be recorded on: the record's name, its shards, and whether there is room."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flyweight.distill import trainer
from flyweight.distill.drawn import Draw
from flyweight.distill.packed import bytes_a_token, kept
from flyweight.distill.shard import HEADER
from flyweight.distill.teacher import TOP_K, wanted
from flyweight.distill.trainer import Row
from flyweight.errors import NoSpace, OptionError, TaskError, TeacherError
from flyweight.folder import free_bytes

FORMAT = 2
SHARD_TOKENS = 2**14  # of a shard, at least: what a kill can cost
MOST_SHARDS = 128  # of a record, roughly: each is an open file while it is used
ENTRY = 128  # bytes, at most, of a shard's line in the list of all


@dataclass(frozen=True, eq=False)
class Wish:
    """What a teacher is to be recorded on: its top `k` of `vocabulary` tokens for `rows`.

    Of the others `drawn` are drawn; where k and they would be all, k is all and none is drawn.
    `source` (JSON values) says which teacher and tokenizer that is, by their hashes. Raises
    TaskError, OptionError or TeacherError where that cannot be.
    """

    rows: Sequence[Row]
    source: Mapping[str, Any]
    vocabulary: int
    k: int = TOP_K

    def __post_init__(self) -> None:
        if self.k < 1:
            raise OptionError(f"top {self.k}: give a number above 0.")
        object.__setattr__(self, "k", kept(self.k, self.vocabulary)[0])
        if not self.tokens:
            raise TaskError("there is no token to learn. Give items with an answer.")
        largest = max(int(np.max(row["input_ids"])) for row in self.rows if len(row["input_ids"]))
        if largest >= self.vocabulary:
            raise TeacherError(
                f"the data hold the token {largest}, the teacher has {self.vocabulary} "
                "embeddings. Use the teacher's own tokenizer."
            )

    @cached_property
    def counts(self) -> list[int]:
        """The wanted tokens of each row."""
        return [wanted(row) for row in self.rows]

    @cached_property
    def tokens(self) -> int:
        """How many tokens are recorded."""
        return sum(self.counts)

    @property
    def drawn(self) -> int:
        """How many tokens are drawn of the others."""
        return kept(self.k, self.vocabulary)[1]

    def draw(self, shard: int) -> Draw | None:
        """How they are drawn in a shard: from its own numbers, the same each time it is written."""
        if not self.drawn:
            return None
        seed = hashlib.sha256(f"{self.name} {shard}".encode()).digest()[:8]
        return Draw(self.drawn, torch.Generator().manual_seed(int.from_bytes(seed, "little")))

    @cached_property
    def name(self) -> str:
        """The record's name: a hash of all that decides what it holds."""
        told = [FORMAT, dict(self.source), self.vocabulary, self.k, 1.0]  # the temperature
        told += [str(trainer.fast_dtype()), rows_sha256(self.rows)]
        text = json.dumps(told, sort_keys=True)
        return f"teacher-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    @cached_property
    def parts(self) -> list[range]:
        """The rows of each shard, as their tokens alone decide."""
        least = max(SHARD_TOKENS, -(-self.tokens // MOST_SHARDS))
        ends, taken = [0], 0
        for place, count in enumerate(self.counts, 1):
            taken += count
            if taken >= least:
                ends.append(place)
                taken = 0
        if taken:
            ends.append(len(self.counts))
        ends[-1] = len(self.counts)  # rows without a token at the end
        return [range(*pair) for pair in pairwise(ends)]

    def bytes(self, k: int | None = None) -> int:
        """Bytes of the record on disk, at most; with another `k` on request."""
        top, drawn = kept(self.k if k is None else k, self.vocabulary)
        each = bytes_a_token(top, self.vocabulary, drawn)
        return self.tokens * each + (HEADER + ENTRY) * (1 + len(self.parts))


def check_room(place: Path, wish: Wish, budget: int | None) -> None:
    """NoSpace, with the k that would fit, where the record is too big."""
    there = sum(file.stat().st_size for file in place.glob("shard-*"))
    limits = [(free_bytes(place) + there, f"the disk under {place} has room for")]
    if budget is not None:
        limits.append((budget, "the budget is"))
    most, says = min(limits)
    if wish.bytes() <= most:
        return
    fitting = next((k for k in range(wish.k - 1, 0, -1) if wish.bytes(k) <= most), 0)
    advice = f"a top {fitting} would fit" if fitting else "fewer items would fit"
    raise NoSpace(
        f"what the teacher says of {wish.tokens:,} tokens, its top {wish.k} of each, takes "
        f"{wish.bytes() / 1e6:,.1f} MB, and {says} {most / 1e6:,.1f} MB: {advice}."
    )


def rows_sha256(rows: Sequence[Row]) -> str:
    """One hash over the ids of training rows and which of them are wanted; not how much."""
    digest = hashlib.sha256()
    for row in rows:
        ids = np.asarray(row["input_ids"], dtype=np.int32)
        asked = np.asarray(row["weights"]) != 0
        digest.update(len(ids).to_bytes(8, "little") + ids.tobytes() + asked.tobytes())
        if "position_ids" in row:  # documents side by side, which do not see each other
            digest.update(np.asarray(row["position_ids"], dtype=np.int32).tobytes())
    return digest.hexdigest()


__all__ = ["Wish", "check_room", "rows_sha256"]
