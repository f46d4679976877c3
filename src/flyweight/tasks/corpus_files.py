"""The files that a corpus may come in, read as streams of records with their places."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any

from flyweight.errors import MissingExtra
from flyweight.tasks.items import Record, fail
from flyweight.tasks.read import object_from, parquet_records

Found = Generator[tuple[str, Record], None, None]  # (file and line, what stands there)

TEXT, LINES, PARQUET = "text", "lines", "parquet"
KINDS = {".txt": TEXT, ".jsonl": LINES, ".parquet": PARQUET}
SEPARATOR = b"<|endoftext|>"
PEEK = 2**20  # bytes of a text file in which a separator is looked for
LONGEST = 2**20  # bytes of a document of a text file; what is longer goes on as another
BOM = b"\xef\xbb\xbf"


def kind_of(path: Path) -> str | None:
    """What a file's name says that it holds, None for what is no corpus."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return KINDS.get(suffixes[-1]) if suffixes else None


def file_records(path: Path, name: str) -> Found:
    """The records of one file, called `name` in messages."""
    kind = kind_of(path)
    if kind is None:
        fail(name, "not a corpus by its name", f"Give {', '.join(KINDS)}, or .gz of the first two")
    if not path.is_file():  # the start of a text file is read twice, which a pipe does not allow
        fail(name, "not a regular file", "Save the corpus to a file and give that")
    packed = path.suffix.lower() == ".gz"
    if kind == PARQUET:
        if packed:
            fail(name, "Parquet inside gzip cannot be streamed", "Unpack it: it is small by itself")
        for row, record in parquet_records(path):
            yield f"{name}, row {row}", record
        return
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            read: Any = _texts if kind == TEXT else _lines
            yield from read(file, name)
    except (OSError, EOFError, zlib.error) as error:
        fail(name, f"cannot be read ({_first_line(error)})", "Give a file that can be")


def hub_records(name: str) -> Found:
    """The records of a data set on the hub, streamed: `name`, or `name:configuration`."""
    try:
        from datasets import load_dataset
        from datasets.utils.logging import disable_progress_bar
    except ImportError as error:
        raise MissingExtra(
            f"{name}: the hub's data sets need datasets. Run: pip install datasets"
        ) from error
    disable_progress_bar()
    path, _, configuration = name.partition(":")
    row = 0
    try:
        found: Any = load_dataset(path, configuration or None, split="train", streaming=True)
        for record in found:
            row += 1
            yield f"{name}, row {row}", dict(record)
    except Exception as error:  # the hub's client and the readers behind it raise dozens of kinds
        where = f"{name}, after row {row}" if row else name
        fail(where, f"cannot be streamed ({_first_line(error)})", "Download it, and give the files")


def _lines(file: IO[bytes], name: str) -> Found:
    for line, raw in enumerate(file, start=1):
        if line == 1:
            raw = raw.removeprefix(BOM)
        if raw.strip():
            place = f"{name}, line {line}"
            yield place, object_from(raw, place)


def _texts(file: IO[bytes], name: str) -> Found:
    """The documents of a text file, each with the line that it begins at."""
    separator = SEPARATOR if _has_separator(file.read(PEEK)) else b""
    file.seek(0)
    begins, size, held = 1, 0, []
    for line, raw, whole in _limited(file):
        if whole and raw.strip() == separator:
            if held:
                yield _text(held, name, begins)
            begins, size, held = line + 1, 0, []
            continue
        held.append(raw)
        size += len(raw)
        if size >= LONGEST:
            held, rest = _cut(held)
            yield _text(held, name, begins)
            begins, size, held = line, len(rest), [rest] if rest else []
    if held:
        yield _text(held, name, begins)


def _has_separator(start: bytes) -> bool:
    return any(line.strip() == SEPARATOR for line in start.splitlines())


def _limited(file: IO[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Lines, or parts of those that are too long: their number, bytes, whether it is whole."""
    line, inside = 1, False
    while raw := file.readline(LONGEST):
        ended = raw.endswith(b"\n")
        if line == 1 and not inside:
            raw = raw.removeprefix(BOM)
        yield line, raw, not inside and (ended or len(raw) < LONGEST)
        line, inside = line + ended, not ended


def _cut(held: list[bytes]) -> tuple[list[bytes], bytes]:
    """The bytes up to the last character that is whole, and the beginning of the next one."""
    text = b"".join(held)
    for back in range(1, 4):  # a character has four bytes at most, the first of them 11xxxxxx
        if text[-back] >= 0b11000000:
            length = 2 + (text[-back] >= 0b11100000) + (text[-back] >= 0b11110000)
            return ([text[:-back]], text[-back:]) if back < length else ([text], b"")
        if text[-back] < 0b10000000:
            break
    return [text], b""


def _text(held: list[bytes], name: str, begins: int) -> tuple[str, Record]:
    raw = b"".join(held)
    try:
        return f"{name}, line {begins}", {"text": raw.decode().strip("\r\n")}
    except UnicodeDecodeError as error:
        line = begins + raw[: error.start].count(b"\n")
        fail(f"{name}, line {line}", "not UTF-8 text", "Save the file as UTF-8")


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__


__all__ = ["KINDS", "Found", "file_records", "hub_records", "kind_of"]
