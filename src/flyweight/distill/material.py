"""What a training reads: a task's items and corpora as rows, and what the teacher says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from flyweight.checkpoint import Checkpoint
from flyweight.distill.cache import Record, record, records_folder
from flyweight.distill.corpora import Cutter, asked, read_corpus
from flyweight.distill.objectives import Aim
from flyweight.distill.pairing import Pairing, pair_up
from flyweight.distill.plan import Plan, planned
from flyweight.distill.teacher import TOP_K
from flyweight.distill.trainer import Row
from flyweight.distill.weights import CALLS, TokenWeights, find_calls, weighted_rows
from flyweight.distill.wish import Wish
from flyweight.errors import OptionError
from flyweight.folder import bytes_of
from flyweight.progress import say
from flyweight.tasks.corpus import documents
from flyweight.tasks.encode import Example, encode_items
from flyweight.tasks.items import Item, Task


@dataclass(frozen=True)
class Material:
    """What a student learns from: `parts` are the rows of the items, then of each corpus."""

    pairing: Pairing
    parts: list[list[Row]]
    plan: Plan | None  # None without a corpus


def read_material(
    big: Checkpoint,
    small: Checkpoint,
    task: Task | None,
    corpora: Sequence[str],
    weights: TokenWeights,
    *,
    apart: bool = False,
    **much: Any,
) -> Material:
    """The rows of a task's train items and of corpora, for a `small` student of a `big` teacher.

    All corpora together have the tokens of the plan, or `apart` each of them; `planned` has `much`.
    """
    answers = [item.answer or "" for item in task.train] if task else []
    pairing = pair_up(big, small, [*answers, *first_texts(corpora)])
    items = item_rows(pairing.tokenizer, task, big.context, weights)
    if not corpora:
        return Material(pairing, [items], None)
    plan = planned(items, context=min(big.context, small.context), **much)
    cutter = Cutter(pairing.tokenizer, plan.length, weights, asked(task))
    tokens = plan.tokens if apart else -(-plan.tokens // len(corpora))
    read = [read_corpus(source, cutter, tokens) for source in corpora]
    return Material(pairing, [items, *read], plan)


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


def recorded(
    big: Checkpoint,
    material: Material,
    aim: Aim,
    place: Path | None = None,
    budget: str | None = None,
    top_k: int = TOP_K,
) -> list[list[Row]]:
    """Each part with what the teacher says about it, by itself: items are recorded but once.

    The parts as they are where the aim needs no record. It is kept in `place` (the user's cache if
    None), all of it within `budget` bytes.
    """
    if not aim.recorded:
        return material.parts
    load = cache(big.model)
    most = None if budget is None else bytes_of(budget, "--cache-budget")
    said: list[list[Row]] = []
    for rows in material.parts:
        if not rows:
            said.append([])
            continue
        folder = place or records_folder()
        found = _record(big, load, rows, material.pairing, folder, most, top_k)
        most = None if most is None else max(0, most - found.wish.bytes())
        said.append(found.rows(drawn=aim.drawn))
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
    wish = Wish(heard, big.identity(), big.shape.vocabulary, top_k)
    found = record(folder / wish.name, wish, load, budget=most)
    if not found.written:
        say(f"The teacher is not run: what it says is known from before ({found.place}).")
    else:
        say(f"What the teacher says is kept for the next time in {found.place}.")
    say(str(found))
    return found


__all__ = ["Material", "first_texts", "item_rows", "read_material", "recorded"]
