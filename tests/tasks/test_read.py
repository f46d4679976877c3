"""Task files as users have them: both formats, byte-order marks, and every way to break one."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flyweight.errors import MissingExtra, TaskError
from flyweight.tasks import read
from flyweight.tasks.items import Task
from flyweight.tasks.read import read_task

Records = list[dict[str, Any]]

SPLIT_RECORDS: Records = [
    {"prompt": "Pump 3 leaks", "answer": {"asset": "pump 3"}, "split": "train", "slice": "plain"},
    {"prompt": "Thanks!", "answer": "none", "split": "validation", "slice": ["no order", "short"]},
    {"prompt": "Größe des Öltanks", "answer": "none", "split": "test", "group": "g", "note": 1},
]


def write(path: Path, records: Records) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def complaint(path: Path) -> str:
    with pytest.raises(TaskError) as caught:
        read_task(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def broken(tmp_path: Path, line: bytes) -> str:
    """The complaint about this as the third line, behind a good and a blank one."""
    path = tmp_path / "tickets.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n\n' + line + b'\n{"prompt": "b"}\n')
    return complaint(path)


def test_given_splits_slices_groups_and_answers_arrive(tmp_path: Path) -> None:
    path = write(tmp_path / "tickets.jsonl", SPLIT_RECORDS)
    task = read_task(str(path))
    (train,), (dev,), (test,) = task.train, task.dev, task.test
    assert task.name == "tickets"
    assert (train.answer, train.slices, train.line) == ('{"asset":"pump 3"}', ("plain",), 1)
    assert (dev.slices, dev.line) == (("no order", "short"), 2)
    assert (test.messages[0]["content"], test.group) == ("Größe des Öltanks", "g")
    assert task.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_without_splits_whole_groups_are_split(tmp_path: Path) -> None:
    records: Records = [{"prompt": f"p{n}", "group": f"g{n % 50}"} for n in range(200)]
    task = read_task(write(tmp_path / "t.jsonl", records))
    groups = [{item.group for item in part} for part in (task.train, task.dev, task.test)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 50
    assert all(groups)


def test_marks_blank_lines_and_foreign_line_ends_do_not_matter(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.jsonl", SPLIT_RECORDS)
    marked = tmp_path / "marked.jsonl"
    lines = plain.read_bytes().splitlines()
    marked.write_bytes(b"\xef\xbb\xbf" + b"\r\n \r\n".join(lines))
    one, other = read_task(plain), read_task(marked)
    assert [item.messages for item in one.train] == [item.messages for item in other.train]
    assert other.test[0].line == 5
    assert one.test_sha256 == other.test_sha256
    assert one.sha256 != other.sha256


def test_the_test_hash_hears_of_test_alone(tmp_path: Path) -> None:
    def test_sha256(*records: dict[str, Any]) -> str:
        return read_task(write(tmp_path / "t.jsonl", list(records))).test_sha256

    train, dev, test = SPLIT_RECORDS
    more = {"prompt": "p", "answer": "x", "split": "test"}
    assert test_sha256(train, dev, test) == test_sha256(test, {**dev, "answer": "x"}, train)
    assert test_sha256(train, dev, test, more) == test_sha256(more, train, dev, test)
    assert test_sha256(train, dev, test) != test_sha256(train, dev, {**test, "answer": "x"})
    assert test_sha256(train, dev, test) != test_sha256(train, dev, test, more)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"prompt": "a" "b"}', "not valid JSON (Expecting ',' delimiter at column 16). Fix"),
        (b'{"prompt": "a"', "not valid JSON"),
        (b'{"prompt": "\xff"}', "not UTF-8 text"),
        ('{"prompt": "a"}'.encode("utf-16"), "not UTF-8 text"),
        (b'{"prompt": "a", "answer": NaN}', "not valid JSON (NaN is not a JSON number)"),
        (b'{"prompt": "a", "answer": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"prompt": "a", "answer": ' + b"[" * 99_999, "not valid JSON (nested too deeply)"),
        (b'["prompt"]', "a JSON object is wanted, not a list"),
        (b"[", "one JSON array over many lines"),
        (b"3", "a JSON object is wanted, not a number"),
        (b"{}", "neither prompt nor messages (found: nothing)"),
        (b'{"prompt": "a", "split": "exam"}', "unknown split 'exam'. Use one of train, dev, test"),
        (b'{"prompt": "a", "split": ["train"]}', "unknown split ['train']"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, expected: str) -> None:
    message = broken(tmp_path, line)
    assert message.startswith("tickets.jsonl, line 3: ")
    assert expected in message


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    assert "no such file" in complaint(tmp_path / "absent.jsonl")
    assert "a folder" in complaint(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in complaint(tmp_path / "pipe")
    assert "cannot be read" in complaint(tmp_path / ("x" * 300))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_holds_no_items(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    assert "holds no items" in complaint(path)


def test_two_groups_are_too_few(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}])
    assert "too few groups to split into train, dev and test (2" in complaint(path)


def same_items(one: Task, other: Task) -> bool:
    return (one.train, one.dev, one.test) == (other.train, other.dev, other.test)


def test_parquet_and_jsonl_say_the_same(tmp_path: Path) -> None:
    records: Records = [
        {
            "messages": [{"role": "user", "content": f"p{n}"}],
            "answer": {"asset": f"pump {n}"} if n % 3 else None,
            "slice": ["even"] if n % 2 == 0 else [],
            "group": n // 2,
        }
        for n in range(3000)
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "t.parquet")
    (tmp_path / "t.parquet").rename(tmp_path / "by-magic.bin")
    task = read_task(tmp_path / "by-magic.bin")
    assert same_items(task, read_task(write(tmp_path / "t.jsonl", records)))
    assert max(item.line for item in task.train) > 2000


def test_parquet_nulls_count_as_absent(tmp_path: Path) -> None:
    records = [
        {"prompt": None, "messages": [{"role": "user", "content": "a", "name": "Ann"}]},
        {"prompt": "b", "messages": None},
        {"prompt": None, "messages": [{"role": "user", "content": "c", "name": None}]},
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "t.parquet")
    task = read_task(tmp_path / "t.parquet")
    messages = sorted((item.line, *item.messages) for item in (*task.train, *task.dev, *task.test))
    assert messages == [
        (1, {"role": "user", "content": "a", "name": "Ann"}),
        (2, {"role": "user", "content": "b"}),
        (3, {"role": "user", "content": "c"}),
    ]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"question": ["a"]}, "neither prompt nor messages (found: 'question')"),
        ({"prompt": ["a", None]}, "t.parquet, row 2: neither prompt nor messages"),
        ({"prompt": ["a"], "answer": [b"x"]}, "t.parquet, row 1: answer holds what JSON cannot"),
        ({"prompt": ["a"], "answer": [float("nan")]}, "answer holds what JSON cannot"),
        ({"prompt": pa.array([], pa.string())}, "holds no items"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, columns: dict[str, Any], expected: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert expected in complaint(tmp_path / "t.parquet")


def test_a_torn_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"prompt": [f"p{n}" for n in range(100)]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "not a readable Parquet file" in complaint(path)
    path.write_text('{"prompt": "a"}\n')
    assert "not a readable Parquet file" in complaint(path)


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="pip install pyarrow"):
        read_task(tmp_path / "t.parquet")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_only_a_large_file_shows_its_progress(
    tmp_path: Path,
    suffix: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / f"t.{suffix}"
    if suffix == "jsonl":
        write(path, SPLIT_RECORDS)
    else:
        table = {"prompt": ["a", "b", "c"], "split": ["train", "dev", "test"]}
        pq.write_table(pa.table(table), path)
    read_task(path)
    assert "Reading" not in capsys.readouterr().err
    monkeypatch.setattr(read, "LARGE", 10.0)
    read_task(path)
    assert f"Reading t.{suffix} (MB)" in capsys.readouterr().err
