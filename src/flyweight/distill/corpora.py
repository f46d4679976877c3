"""Corpora as training rows: read as far as a training goes, tokenised, cut, weighted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.distill.trainer import Row
from flyweight.distill.weights import TokenWeights
from flyweight.errors import TaskError
from flyweight.progress import bar, say
from flyweight.tasks import leaks
from flyweight.tasks.conversation import encode_chat
from flyweight.tasks.corpus import Document, documents
from flyweight.tasks.items import Item, Message, Task

LEAST = 2  # tokens of a row: of one nothing is to be predicted


@dataclass(frozen=True)
class Cutter:
    """Makes rows of at most `length` tokens of documents.

    A text is cut into pieces, each of which begins with the start token where the tokenizer has
    one, and all of whose tokens count as an answer's do. A chat ends where the row does; the
    assistant's turns count as answers, the rest as prompt. `refused` is what the task's held-out
    items ask (`asked`): TaskError for a chat that asks it too. Texts are not searched for it.
    """

    tokenizer: Any
    length: int
    weights: TokenWeights
    refused: Mapping[str, tuple[str, int]]

    def rows(self, document: Document) -> Iterator[Row]:
        """The rows of a document, none where nothing of it is to be learned."""
        if document.messages:
            self._refuse_leak(document)
            found = encode_chat(self.tokenizer, document.messages, document.place)
            ids, said = found.ids[: self.length], found.said[: self.length]
            weights = np.where(said, self.weights.answer, self.weights.prompt)
            if np.any(said[1:]):
                yield {"input_ids": ids, "weights": weights.astype(np.float32)}
            return
        start = self.tokenizer.bos_token_id
        before = [] if start is None else [start]
        ids = self.tokenizer(document.text, add_special_tokens=False)["input_ids"]
        step = self.length - len(before)
        for first in range(0, len(ids), step):
            piece = np.array([*before, *ids[first : first + step]], dtype=np.int32)
            if len(piece) >= LEAST:
                yield {"input_ids": piece, "weights": self.weights.of(len(piece), 1)}

    def _refuse_leak(self, document: Document) -> None:
        for turn, message in enumerate(document.messages):
            if message["role"] != "assistant" or not self.refused:
                continue
            question = _question(document.messages[:turn])
            if question in self.refused:
                split, line = self.refused[question]
                raise TaskError(
                    f"{document.place}: asks what the task's {split} asks on line {line} (a leak). "
                    f"Remove it from the corpus, or the item from {split}."
                )


def asked(task: Task | None) -> dict[str, tuple[str, int]]:
    """What a task's test and dev ask, by whatever case and white space: the split and the line."""
    held_out = {"dev": task.dev, "test": task.test} if task else {}
    return {
        _question(item.messages): (split, item.line)
        for split, items in held_out.items()
        for item in reversed(items)
    }


def _question(messages: Sequence[Message]) -> str:
    """What is asked, whatever the system is told besides."""
    return leaks.normal(leaks.telling(Item(tuple(messages), None)))


def read_corpus(source: str, cutter: Cutter, tokens: int) -> list[Row]:
    """The rows of the corpus's first documents, of `tokens` tokens or somewhat more; or all.

    Says what was read. TaskError where there is nothing to learn.
    """
    name = Path(source).name
    rows: list[Row] = []
    count, without, read, whole = 0, 0, 0, True
    with bar(f"Reading {name} (tokens)", tokens) as running, closing(documents(source)) as found:
        for document in found:
            before = len(rows)
            for row in cutter.rows(document):
                rows.append(row)
                running.advance(min(len(row["input_ids"]), tokens - read))
                read += len(row["input_ids"])
                if read >= tokens:
                    break
            count += len(rows) > before
            without += len(rows) == before
            if read >= tokens:
                whole = False
                break
    lost = f"{without:,} documents have nothing to learn within {cutter.length:,} tokens"
    if not rows:
        raise TaskError(
            f"{source}: {lost}. Give a longer --row-length to `distill`, or another corpus."
            if without
            else f"{source}: holds nothing to learn. Give a corpus with documents in it."
        )
    times = f"all of it, {tokens / read:.1f} times over" if whole else "from its beginning"
    say(f"{name}: {count:,} documents, {read:,} tokens in {len(rows):,} pieces, {times}.")
    if without:
        say(f"{name}: {lost}; `distill` takes longer ones with a longer --row-length.")
    return rows


__all__ = ["Cutter", "asked", "read_corpus"]
