"""A task file, read: JSONL or Parquet, one item a line; every error names the file and the line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from flyweight.errors import MissingExtra, TaskError
from flyweight.progress import bar
from flyweight.tasks.items import (
    FIELDS,
    PROMPTS,
    Item,
    Record,
    Task,
    content_sha256,
    fail,
    item_from,
    kind,
    no_prompt,
    short,
)
from flyweight.tasks.split import SPLITS, divide

Records = Generator[tuple[int, Record], None, None]  # (place in the file, what stands there)

SYNONYMS = {"validation": "dev", "val": "dev"}
LARGE = 20e6  # bytes; below it, reading takes less than a second


def read_task(path: Path | str, *, pictures: bool = False, needed: Sequence[str] = SPLITS) -> Task:
    """The task in a JSONL (UTF-8) or Parquet file; raises TaskError naming the file and the line.

    Fields: `prompt` or `messages` or `text`; `answer` (anything but text becomes compact JSON);
    `slice`, `group` and `split` if wanted; `image` where `pictures` are asked of, which else is
    refused. Null counts as absent, other fields are ignored. Where splits are given, those that are
    `needed` must occur.
    """
    path = Path(path)
    _refuse_unreadable(path)
    unit, records = unit_of(path), records_of(path)
    items: list[Item] = []
    splits: list[str | None] = []
    with closing(records):  # an error must not leave a progress bar running
        for line, record in records:
            place = f"{path.name}, {unit} {line}"
            if not pictures and record.get("image") is not None:
                fail(
                    place,
                    "asks of a picture, which only models with eyes can be taught and asked (see "
                    "train-vision, chat --image)",
                    "Leave the field image out",
                )
            item = item_from(record, line, place)
            items.append(item if item.image is None else replace(item, folder=str(path.parent)))
            splits.append(_split(record.get("split"), place))
    if not items:
        raise TaskError(f"{path.name}: holds no items. Write one JSON object a line.")
    parts = divide(items, splits, path.name, unit, needed)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Task(path.stem, **parts, sha256=sha256, test_sha256=content_sha256(parts["test"]))


def unit_of(path: Path) -> str:
    """What a place in this file is called."""
    return "row" if _is_parquet(path) else "line"


def records_of(path: Path) -> Records:
    """What stands at each place of a task file that can be read, as it stands there."""
    return _metered_parquet(path) if _is_parquet(path) else _jsonl(path)


def _refuse_unreadable(path: Path) -> None:
    try:
        if path.is_dir():
            fail(str(path), "a folder", "Give the task file in it")
        if not path.exists():
            fail(str(path), "no such file", "Give a task in JSONL or Parquet")
        if not path.is_file():  # it is read twice, which a pipe does not allow
            fail(str(path), "not a regular file", "Save the task to a file and give that")
        path.open("rb").close()
    except OSError as error:
        fail(str(path), f"cannot be read ({error.strerror})", "Give a file that can be")


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1" or path.suffix.lower() == ".parquet"


@contextmanager
def _meter(path: Path) -> Iterator[Callable[[float], None]]:
    """Takes the bytes read so far, piece by piece; shows them if the file is large."""
    size = path.stat().st_size
    if size <= LARGE:
        yield lambda _: None
        return
    with bar(f"Reading {path.name} (MB)", round(size / 1e6)) as running:
        yield lambda count: running.advance(count / 1e6)


def _jsonl(path: Path) -> Records:
    with path.open("rb") as file, _meter(path) as read:
        for line, raw in enumerate(file, start=1):
            read(len(raw))
            if line == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if raw.strip():
                yield line, object_from(raw, f"{path.name}, line {line}")


def object_from(raw: bytes, place: str) -> Record:
    """The JSON object that a line holds; TaskError at `place` where it is none."""
    try:
        record = json.loads(raw.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        fail(place, "not UTF-8 text", "Save the file as UTF-8, one JSON object a line")
    except json.JSONDecodeError as error:
        if raw.strip() == b"[":
            fail(place, "one JSON array over many lines", "Write one JSON object a line")
        fail(
            place, f"not valid JSON ({error.msg} at column {error.colno})", "Fix or remove the line"
        )
    except RecursionError:
        fail(place, "not valid JSON (nested too deeply)", "Fix or remove the line")
    except ValueError as error:
        fail(place, f"not valid JSON ({error})", "Fix or remove the line")
    if not isinstance(record, dict):
        fail(place, f"a JSON object is wanted, not {kind(record)}", "Write one JSON object a line")
    return record


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _metered_parquet(path: Path) -> Records:
    with _meter(path) as read:
        yield from parquet_records(path, read)


def parquet_records(path: Path, read: Callable[[float], None] = lambda _: None) -> Records:
    """The rows of a Parquet file, counted from 1; `read` is told of the bytes that are behind."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra(
            f"{path.name}: Parquet needs pyarrow. Run: pip install pyarrow"
        ) from error
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not set(names) & set(PROMPTS):
                fail(path.name, no_prompt(names), "Name the column prompt")
            row, size, rows = 0, path.stat().st_size, file.metadata.num_rows
            for batch in file.iter_batches(1024, columns=[n for n in names if n in FIELDS]):
                read(size * batch.num_rows / rows)
                for record in batch.to_pylist():
                    row += 1
                    yield row, record
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        fail(
            path.name,
            f"not a readable Parquet file ({' '.join(str(error).split())})",
            "Write it again",
        )


def _split(value: Any, place: str) -> str | None:
    if value is None:
        return None
    name = value.strip().lower() if isinstance(value, str) else value
    name = SYNONYMS.get(name, name) if isinstance(name, str) else name
    if name not in SPLITS:
        fail(place, f"unknown split {short(value)}", f"Use one of {', '.join(SPLITS)}")
    return name
