"""Corpora: every form gives the documents that stand in it, and is read no further than asked."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.errors import TaskError
from flyweight.tasks import corpus_files
from flyweight.tasks.corpus import Document, documents
from flyweight.tasks.corpus_files import hub_records

USER = {"role": "user", "content": "is it hot?"}
YES = {"role": "assistant", "content": "yes"}
RECORDS: list[dict[str, Any]] = [
    {"text": "the pump leaks\n\nand is hot"},
    {"messages": [USER, YES, USER, YES]},
    {"messages": [USER], "answer": "yes"},
    {"prompt": "is it hot?", "answer": "yes"},
    {"text": "   "},
    {"prompt": "of the test", "answer": "x", "split": "test"},
]


def written(path: Path, records: list[dict[str, Any]] = RECORDS) -> Path:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines)
    return path


def checked(found: list[Document]) -> None:
    assert [each.text for each in found] == ["the pump leaks\n\nand is hot", "", "", ""]
    assert list(found[1].messages) == [USER, YES, USER, YES]
    assert list(found[2].messages) == list(found[3].messages) == [USER, YES]


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz"])
def test_lines_are_documents_with_their_places(tmp_path: Path, name: str) -> None:
    found = list(documents(written(tmp_path / name)))
    checked(found)
    assert [each.place for each in found] == [f"{name}, line {i}" for i in (1, 2, 3, 4)]


def test_parquet_gives_the_same(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(RECORDS_FOR_ARROW), tmp_path / "c.parquet")
    checked(list(documents(tmp_path / "c.parquet")))


FIELDS = ("text", "messages", "prompt", "answer", "split")
RECORDS_FOR_ARROW = [{name: record.get(name) for name in FIELDS} for record in RECORDS]


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "notes.md").write_text("no")
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\n three \n")
    written(tmp_path / "deep" / "b.jsonl", [{"text": "four"}])
    found = [(each.place, each.text) for each in documents(tmp_path)]
    assert found == [
        ("a.txt, line 1", "one\ntwo"),
        ("a.txt, line 5", " three "),
        (f"{Path('deep') / 'b.jsonl'}, line 1", "four"),
    ]


def test_a_separator_keeps_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.txt.gz"
    path.write_bytes(gzip.compress("\ufeffa\n\nb\n<|endoftext|>\nc ü\n".encode()))
    assert [(d.place, d.text) for d in documents(path)] == [
        ("c.txt.gz, line 1", "a\n\nb"),
        ("c.txt.gz, line 5", "c ü"),
    ]


def test_real_stories_are_all_found(shared: Path) -> None:
    path = shared / "data" / "stories" / "tinystories_sample.txt"
    told = [each.strip() for each in path.read_text().split("<|endoftext|>")]
    assert [each.text.strip() for each in documents(path)] == [each for each in told if each]


@given(st.text(alphabet="aü€𝄞\n ", max_size=60), st.integers(4, 9))
def test_no_character_is_lost_where_long_documents_are_cut(text: str, longest: int) -> None:
    import io

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_files, "LONGEST", longest)
        found = list(corpus_files._texts(io.BytesIO(text.encode()), "c.txt"))
    told = "".join(record["text"] for _, record in found)
    assert re.sub(r"\s", "", told) == re.sub(r"\s", "", text)
    assert all(len(record["text"].encode()) <= 2 * longest for _, record in found)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.jsonl", b'{"text": "a"}\n{"text": 1}\n', "c.jsonl, line 2: text must be text"),
        ("c.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "neither prompt nor messages (found: 'txt')"),
        ("c.jsonl", b'{"text": "a"}\n\n{oops\n', "c.jsonl, line 3: not valid JSON"),
        ("c.jsonl", b'{"prompt": "a"}\n', "line 1: no answer to learn"),
        ("c.jsonl", b'{"messages": [{"role": "user", "content": "a"}]}\n', "line 1: no answer"),
        ("c.jsonl", b'{"messages": [{"role": "me", "content": "a"}]}\n', "message 1 has the role"),
        ("c.txt", b"a\n\nb\n\xff\n", "c.txt, line 4: not UTF-8"),
        ("c.txt.gz", b"no gzip", "c.txt.gz: cannot be read"),
        ("c.txt.gz", gzip.compress(os.urandom(9999))[:500], "c.txt.gz: cannot be read"),
        ("c.parquet", b"PAR1", "c.parquet: not a readable Parquet file"),
        ("c.parquet.gz", b"", "Parquet inside gzip"),
        ("c.csv", b"a,b\n", "not a corpus by its name"),
    ],
)
def test_wrong_input_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError, match=re.escape(said)):
        list(documents(tmp_path / name))


def test_missing_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no such file or folder"):
        list(documents(tmp_path / "none.jsonl"))
    with pytest.raises(TaskError, match="no corpus in it"):
        list(documents(tmp_path))
    with pytest.raises(TaskError, match=r"cannot be read \(File name too long"):
        list(documents("a" * 300 + ".txt"))


def test_the_code_of_the_hub_streams_a_folder(tmp_path: Path) -> None:
    """`datasets` itself, on a data set that lies here: other names than files do the same."""
    written(tmp_path / "train.jsonl", [{"text": f"document {i}"} for i in range(50)])
    records = hub_records(str(tmp_path))
    first = list(itertools.islice(records, 3))
    assert [record["text"] for _, record in first] == [f"document {i}" for i in range(3)]
    assert first[2][0].endswith("row 3")
    records.close()


def test_a_hub_name_without_the_hub_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route to\nthe hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(TaskError, match=r"own/er: cannot be streamed \(no route to the hub"):
        list(documents("own/er"))


@pytest.mark.parametrize("name", ["c.txt", "c.jsonl"])
def test_a_corpus_is_not_held(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    line = json.dumps({"text": "x" * 10_000}) if name.endswith("l") else "x" * 10_000 + "\n"
    with path.open("w") as file:
        file.writelines(line + "\n" for _ in range(2000))  # 20 MB
    tracemalloc.start()
    assert sum(1 for _ in documents(path)) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"text": "hello", "split": " Train "}, "hello"),
        ({"text": "hello", "split": "test"}, None),
        ({"prompt": "Write of pumps.", "text": "A pump."}, "A pump."),  # what a text came from
        ({"text": "hello", "messages": []}, "hello"),
        ({"text": "hello", "group": 1.5, "slice": 3}, "hello"),
        ({"text": "  ", "messages": CHAT}, CHAT),
        ({"prompt": "a", "answer": "b", "text": ""}, CHAT),
        ({"text": " "}, None),
        ({"text": None, "id": 1}, None),
        ({"prompt": "a", "answer": []}, [CHAT[0], CHAT[1] | {"content": "[]"}]),
    ],
)
def test_the_first_form_that_says_something_counts(
    tmp_path: Path, record: dict[str, Any], wanted: Any
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record) + "\n")
    found = [each.text or list(each.messages) for each in documents(path)]
    assert found == ([] if wanted is None else [wanted])
