"""What a training reads: a task's items and corpora as rows, and what the teacher says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from flyweight.checkpoint import Checkpoint
from flyweight.distill.cache import Record, cache_folder, record
from flyweight.distill.corpora import Cutter, read_corpus
from flyweight.distill.pairing import Pairing
from flyweight.distill.teacher import TOP_K
from flyweight.distill.trainer import Row
from flyweight.distill.weights import CALLS, TokenWeights, find_calls, weighted_rows
from flyweight.distill.wish import Wish
from flyweight.errors import OptionError
from flyweight.folder import bytes_of, sha256_of
from flyweight.progress import say
from flyweight.tasks.corpus import documents
from flyweight.tasks.encode import Example, encode_items
from flyweight.tasks.items import Item, Task


def item_rows(tokenizer: Any, task: Task | None, context: int, weights: TokenWeights) -> list[Row]:
    """Training rows of a task's train items, none without a task."""
    if task is None:
        return []
    examples = encode_items(tokenizer, task.train, task.name, context)
    calls = [] if weights.tool_call == 1 else _calls(tokenizer, task.train, examples, task.name)
    return weighted_rows(examples, weights, calls)


def _calls(
    tokenizer: Any, items: Sequence[Item], examples: Sequence[Example], name: str
) -> list[list[tuple[int, int]]]:
    """The tool calls of each row; OptionError where there is none to weigh."""
    found = [
        find_calls(tokenizer, item.answer or "", example.prompt_length)
        for item, example in zip(items, examples, strict=True)
    ]
    if not any(found):
        marks = ", ".join(begin for begin, _ in CALLS)
        raise OptionError(
            f"--tool-weight: no train answer of {name} calls a tool (by {marks}). Leave it out."
        )
    return found


def first_texts(corpora: Sequence[str]) -> list[str]:
    """Some texts of each corpus, for the tokenizers to be compared on; what is wrong shows here."""
    found = []
    for source in corpora:
        with closing(documents(source)) as stream:
            for document in islice(stream, 20):
                said = (str(message["content"]) for message in document.messages)
                found.append(document.text or "\n".join(said))
    return found


def read_corpora(corpora: Sequence[str], cutter: Cutter, tokens: int) -> list[list[Row]]:
    """The rows of each corpus, of as many of the `tokens` as are read of it."""
    return [read_corpus(source, cutter, -(-tokens // len(corpora))) for source in corpora]


def recorded(
    big: Checkpoint,
    parts: Sequence[list[Row]],
    pairing: Pairing,
    place: Path | None = None,
    budget: str | None = None,
    top_k: int = TOP_K,
    drawn: bool = False,
) -> list[list[Row]]:
    """Each part with what the teacher says about it, by itself: items are recorded but once.

    With `drawn` as forward KL needs it (`Record.rows`), otherwise as any divergence can have it.
    It is kept in `place` (the user's cache if None), all of it within `budget` bytes.
    """
    load = cache(big.model)
    most = None if budget is None else bytes_of(budget, "--cache-budget")
    said: list[list[Row]] = []
    for rows in parts:
        if not rows:
            said.append([])
            continue
        found = _record(big, load, rows, pairing, place or cache_folder(), most, top_k)
        most = None if most is None else max(0, most - found.wish.bytes())
        said.append(found.rows(drawn=drawn))
        for row, own in zip(said[-1], rows, strict=True):
            row["input_ids"] = own["input_ids"]
    return said


def _record(
    big: Checkpoint,
    load: Callable[[], Any],
    rows: list[Row],
    pairing: Pairing,
    folder: Path,
    most: int | None,
    top_k: int,
) -> Record:
    """What the teacher says about the rows, which it reads in its own ids."""
    heard = rows
    if pairing.to_teacher is not None:
        ids = pairing.to_teacher.numpy()
        heard = [row | {"input_ids": ids[row["input_ids"]]} for row in rows]
    source = {
        "teacher": big.sha256(),
        "tokenizer": big.tokenizer_sha256(),
        "config": sha256_of(big.path / "config.json"),
    }
    wish = Wish(heard, source, big.shape.vocabulary, top_k)
    found = record(folder / wish.name, wish, load, budget=most)
    if not found.written:
        say(f"The teacher is not run: what it says is known from before ({found.place}).")
    else:
        say(f"What the teacher says is kept for the next time in {found.place}.")
    say(str(found))
    return found


__all__ = ["first_texts", "item_rows", "read_corpora", "recorded"]
