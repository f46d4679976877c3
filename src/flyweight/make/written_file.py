"""The file that `write-data` leaves, and what it says on the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyweight.folder import disk_errors
from flyweight.make.sieve import REASONS, Sieve
from flyweight.progress import say
from flyweight.tasks.items import PROMPTS, Item, Record, Task
from flyweight.tasks.leaks import check_leakage
from flyweight.tasks.read import read_task, records_of

if TYPE_CHECKING:
    from flyweight.make.writing import Request

SHOWN = 90  # characters of an example


def save(
    request: Request,
    task: Task,
    answers: Mapping[int, str | None],
    kept: Sequence[Item],
) -> int:
    """Write the task's own items and the new ones; how many of train have no answer and are lost.

    `answers` by place in the task's file are for train items without one. The file gets its name
    when it has been read again and shown to leak nothing.
    """
    out = request.out.absolute()
    scratch = out.with_name(f".{out.name}.part")
    rows = list(_own(request.task, task, answers))
    form, writer = _form(request.task), Path(request.teacher).name
    rows += [_new(item, form, writer) for item in kept]
    try:
        with disk_errors(out):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            scratch.write_text(text, encoding="utf-8")
        again = read_task(scratch)
        for held_out in (again.test, again.dev):
            check_leakage(again.train, held_out, out.name, out.name)
        with disk_errors(out):
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            scratch.replace(out)
    finally:
        scratch.unlink(missing_ok=True)
    return sum(answer is None for answer in answers.values())


def _own(file: Path, task: Task, answers: Mapping[int, str | None]) -> Iterator[Record]:
    """The task's records as they are, each with its split."""
    splits = {item.line: name for name, items in task.splits.items() for item in items}
    with closing(records_of(file)) as records:
        for line, record in records:
            if record.get("split") is None:
                record = record | {"split": splits[line]}
            if line in answers:
                if answers[line] is None:
                    continue
                record = record | {"answer": answers[line]}
            yield record


def _form(file: Path) -> str:
    """The field in which a file gives its prompts: that of its first record."""
    with closing(records_of(file)) as records:
        _, first = next(records)
    return next(each for each in PROMPTS if first.get(each) is not None)


def _new(item: Item, form: str, writer: str) -> Record:
    """A written item as a record; a chat of more than a user's words is always told as messages."""
    [first, *others] = item.messages
    if others or first.keys() != {"role", "content"} or first["role"] != "user":
        form = "messages"
    asked: Any = list(item.messages) if form == "messages" else item.last_text
    return {form: asked, "answer": item.answer, "split": "train", "written_by": writer}


def say_outcome(
    request: Request, sieve: Sieve, way: str, tries: int, lost: int, how_sure: str
) -> None:
    """What was written, what was kept, and why the rest was not, with an example of each."""
    kept = sieve.kept
    say(f"{request.out}: {len(kept):,} new train items of {tries:,} tries, drawn by {way}.")
    if len(kept) < request.items:
        say(
            f"{request.items:,} were wanted: too few of the tries are of use. Give more train "
            "items, or another --way or --temperature."
        )
    _example("kept", len(kept), kept[0])
    for name, reason in REASONS.items():
        if sieve.dropped[name] or name == "leak":
            _example(reason, sieve.dropped[name], sieve.examples.get(name))
    say(f"Sure enough is a mean log-probability of {sieve.least:.3g} a token: {how_sure}.")
    if lost:
        say(f"{lost} train items without an answer are left out: the teacher's did not end.")


def _example(reason: str, count: int, item: Item | None) -> None:
    text = "" if item is None else " ".join(item.last_text.split())
    shown = f": {text[:SHOWN]!r}" if text else ""
    answer = f" -> {item.answer[:SHOWN]!r}" if item is not None and item.answer else ""
    say(f"  {count:6,}  {reason}{shown}{answer}")
