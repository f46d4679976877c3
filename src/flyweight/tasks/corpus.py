"""Text and chat corpora as streams of documents: files, folders of them, or a hub name.

Nothing is held but the document in hand: a corpus may be larger than memory, and is read no
further than somebody asks.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from flyweight.errors import TaskError
from flyweight.tasks.corpus_files import KINDS, Found, file_records, hub_records, kind_of
from flyweight.tasks.items import (
    PROMPTS,
    Message,
    Record,
    conversation,
    fail,
    item_from,
    short,
)

Documents = Generator["Document", None, None]


@dataclass(frozen=True)
class Document:
    """Plain `text`, or a chat's `messages`, of which the assistant's are what is to be learned."""

    place: str  # file and line, for messages
    text: str = ""
    messages: tuple[Message, ...] = ()


def documents(source: str | Path) -> Documents:
    """The documents of a corpus, in its own order; TaskError with file and line for wrong input.

    `.jsonl` and `.parquet` hold a record a line: `text`; or `messages`, or `prompt` and `answer`,
    as in a task file, where `messages` may end with the assistant's. A record whose `split` is
    not train is left out, and so is an empty text, or null. `.txt` is split at lines that hold
    nothing but <|endoftext|>, where one stands in its first megabyte, and else at blank lines. Each
    may be `.gz`, Parquet excepted. A folder is read file by file, by their names. Anything else is
    the name of a data set on the hub, with its configuration behind a colon if it has several; its
    split `train` is streamed. Any of them can be read again from the start.
    """
    with closing(_records(source)) as records:
        for place, record in records:
            document = document_from(record, place)
            if document is not None:
                yield document


def document_from(record: Record, place: str) -> Document | None:
    """What a record holds: a document, or None where it is empty or of another split than train."""
    split = record.get("split")
    if split is not None and str(split).strip().lower() != "train":
        return None
    told = _told(record)
    if told == {"text": ""}:
        return None
    chat = told.get("messages")
    if isinstance(chat, list) and "answer" not in told:
        messages = conversation(chat, place)
    else:
        item = item_from(told, 0, place)  # says what is wrong with it
        if "text" in told and item.answer is None:
            return Document(place, text=item.messages[0]["content"])
        messages = item.messages
        if item.answer is not None:
            messages = (*messages, {"role": "assistant", "content": item.answer})
    if not any(message["role"] == "assistant" for message in messages):
        fail(place, "no answer to learn", "Add one, or name the field text if it is plain text")
    return Document(place, messages=messages)


def _told(record: Record) -> Record:
    """The fields that count: the first of messages, text and prompt that says something.

    Data sets have more beside them: the prompt that a text was written for, empty fields of the
    other forms, groups of their own kind. The record as it is where it has none of the fields.
    """
    found = {
        name: record[name]
        for name in ("messages", "text", "prompt", "answer")
        if record.get(name) is not None and (record[name] != [] or name == "answer")
    }
    said = [name for name in found if not isinstance(found[name], str) or found[name].strip()]
    forms = [name for name in said if name != "answer"]
    if not forms:
        if "text" in record and not said:
            return {"text": ""}
        return found if found.keys() & set(PROMPTS) else record
    kept = (forms[0], "answer") if "answer" in said else (forms[0],)
    return {name: found[name] for name in kept}


def _records(source: str | Path) -> Found:
    path = Path(source)
    try:
        path.exists()
    except OSError as error:  # too long a name, or a folder that is closed
        fail(short(str(source)), f"cannot be read ({error.strerror})", "Give a corpus that can be")
    if path.is_dir():
        for file in _files(path):
            yield from file_records(file, str(file.relative_to(path)))
    elif path.exists():
        yield from file_records(path, path.name)
    elif _looks_like_hub_name(str(source)):
        yield from hub_records(str(source))
    else:
        raise TaskError(
            f"{source}: no such file or folder. Give a corpus in {', '.join(sorted(KINDS))}, "
            "a folder of such files, or the name of a data set on the hub."
        )


def _files(folder: Path) -> list[Path]:
    """The corpus files in a folder and below, hidden ones left out."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
        and kind_of(path) is not None
    ]
    if not found:
        fail(str(folder), "no corpus in it", f"Give a folder of {', '.join(sorted(KINDS))} files")
    return found


def _looks_like_hub_name(source: str) -> bool:
    name = source.partition(":")[0]
    parts = name.split("/")
    ends_like_a_file = Path(name).suffix.lower() in {*KINDS, ".gz"}
    return (
        len(parts) == 2
        and all(parts)
        and not name.startswith((".", "/", "~"))
        and not ends_like_a_file
    )


__all__ = ["Document", "Documents", "document_from", "documents"]
