"""What a teacher writes for a task, against transformers, and against what a filter promises."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from writing_teacher import run_until, task_rows, teach, write_rows

import flyweight
from flyweight.errors import (
    FlyweightError,
    FolderError,
    OptionError,
    TaskError,
    TeacherError,
)
from flyweight.make import writing
from flyweight.make.drawing import Drawer, _json_string
from flyweight.make.journal import Journal
from flyweight.make.sieve import UNSURE, Sieve, Written, sure_enough
from flyweight.make.store import work_folder
from flyweight.make.written_file import _new
from flyweight.tasks.encode import prompt_ids
from flyweight.tasks.items import Item, content_sha256, item_from
from flyweight.tasks.leaks import NEAR, asked, check_leakage, grams, near_copies
from flyweight.tasks.read import read_task

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def teacher(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(teach(make_llama(tmp_path_factory.mktemp("writer") / "teacher")))


def rows_of(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def written(path: Path) -> Rows:
    return [row for row in rows_of(path) if "written_by" in row]


@pytest.fixture(scope="module")
def file(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once, not interrupted: what others are compared with."""
    place = tmp_path_factory.mktemp("whole")
    task = write_rows(place / "task.jsonl", task_rows())
    return flyweight.write_data(teacher, place / "out.jsonl", task=task, items=20, way="own")


def test_it_holds_the_task_as_it_was_and_new_train_items(file: Path) -> None:
    assert [row for row in rows_of(file) if "written_by" not in row] == task_rows()
    new = written(file)
    assert len(new) == 20
    assert all(row.keys() == {"prompt", "answer", "split", "written_by"} for row in new)
    task, before = read_task(file), read_task(file.with_name("task.jsonl"))
    assert content_sha256(task.test) == before.test_sha256
    assert len(task.train) == len(before.train) + 20
    check_leakage(task.train, task.dev + task.test, "out", "out")


def test_answers_are_those_of_transformers(file: Path, teacher: str) -> None:
    from flyweight.checkpoint import open_checkpoint

    source = open_checkpoint(teacher)
    model, tokenizer = source.model().eval(), source.tokenizer()
    same = 0
    for row in written(file):
        ids = prompt_ids(tokenizer, [{"role": "user", "content": row["prompt"]}])
        with torch.inference_mode():
            said = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)
        same += tokenizer.decode(said[0, len(ids) :], skip_special_tokens=True) == row["answer"]
    assert same >= 19  # a near tie may fall the other way at 16 bits


def test_the_seed_decides_what_is_written(file: Path, teacher: str, tmp_path: Path) -> None:
    task = write_rows(tmp_path / "task.jsonl", task_rows())
    again, other = (
        flyweight.write_data(
            teacher, tmp_path / f"{seed}.jsonl", task=task, items=20, way="own", seed=seed
        )
        for seed in (0, 1)
    )
    assert again.read_bytes() == file.read_bytes()
    assert other.read_bytes() != file.read_bytes()


@pytest.mark.parametrize("stage", ["packed", ".tries"])
def test_after_a_kill_it_goes_on_and_ends_the_same(
    stage: str, file: Path, teacher: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    task = write_rows(tmp_path / "task.jsonl", task_rows())
    job: dict[str, Any] = {
        "teacher": teacher, "out": out, "task": task, "items": 20, "way": "own",
    }  # fmt: skip
    assert not run_until(dict(job), stage, tmp_path / "log")
    assert not out.exists()
    flyweight.write_data(**job)
    assert out.read_bytes() == file.read_bytes()
    events = Journal(tmp_path / "out.jsonl.work").events()
    ended = [event["name"] for event in events if event["event"] == "ended"]
    assert len(ended) == len(set(ended))  # nothing was worked out twice
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "log", "out.jsonl", "out.jsonl.work", "task.jsonl",
    ]  # fmt: skip


def test_a_chat_stays_a_chat_and_missing_answers_come_from_the_teacher(
    teacher: str, tmp_path: Path
) -> None:
    task = write_rows(tmp_path / "task.jsonl", task_rows(chat=True, answers=False))
    out = flyweight.write_data(teacher, tmp_path / "out.jsonl", task=task, items=5, way="continued")
    for row in written(out):
        assert [each["role"] for each in row["messages"]] == ["system", "user"]
        assert row["messages"][0] == task_rows(chat=True)[0]["messages"][0]
        assert row["answer"]
    assert all(item.answer for item in read_task(out).train)


def test_the_way_of_which_most_survive_is_taken(
    teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(writing, "WAYS", ("own", "examples"))
    task = write_rows(tmp_path / "task.jsonl", task_rows())
    flyweight.write_data(teacher, tmp_path / "out.jsonl", task=task, items=3)
    told = " ".join(capsys.readouterr().err.split())
    assert "Prompts are drawn by: own" in told
    assert "3 new train items" in told
    assert "a dev or test item, or nearly one" in told


# --------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"items": 0}, OptionError, "--items"),
        ({"temperature": 0.0}, OptionError, "--temperature"),
        ({"temperature": float("nan")}, OptionError, "--temperature"),
        ({"way": "prayer"}, OptionError, "--way"),
        ({"seed": -1}, OptionError, "--seed"),
        ({"seed": 2**32}, OptionError, "--seed"),
        ({"score": "likelihood"}, OptionError, "--score"),
        ({"out": "folder"}, FolderError, "folder"),
        ({"out": "out.PARQUET"}, OptionError, "JSONL"),
        ({"out": "task.jsonl"}, FolderError, "Choose another name"),
        ({"task": "absent.jsonl"}, TaskError, "no such file"),
    ],
)
def test_bad_input_leaves_nothing(
    change: dict[str, Any],
    error: type[FlyweightError],
    words: str,
    tiny_llama: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "folder").mkdir()
    write_rows(tmp_path / "task.jsonl", task_rows())
    before = sorted(tmp_path.rglob("*"))
    job: dict[str, Any] = {"out": "out.jsonl", "task": "task.jsonl"} | change
    job |= {name: tmp_path / job[name] for name in ("out", "task")}
    with pytest.raises(error, match=words):
        flyweight.write_data(str(tiny_llama), **job)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_written_replaces_no_task_that_is_read(tiny_llama: Path, tmp_path: Path) -> None:
    task = write_rows(tmp_path / "more.jsonl", task_rows())
    work_folder(task).mkdir()  # as if it had been written by an earlier run
    (tmp_path / "link.jsonl").symlink_to(task)
    before = task.read_bytes()
    for name in ("more.jsonl", "link.jsonl"):
        with pytest.raises(FolderError, match=r"is the task, which is read\. Choose another name"):
            flyweight.write_data(str(tiny_llama), task, task=tmp_path / name)
    assert task.read_bytes() == before
    assert not [*work_folder(task).iterdir()]


def test_a_teacher_that_cannot_be_asked_leaves_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(tiny_llama, tmp_path / "broken"))
    (broken / "tokenizer.json").write_text("", encoding="utf-8")
    task = write_rows(tmp_path / "task.jsonl", task_rows())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TeacherError, match="tokenizer"):
        flyweight.write_data(str(broken), tmp_path / "out.jsonl", task=task)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_item_that_is_too_long_for_the_teacher_is_named_before_it_is_asked(
    tiny_llama: Path, tmp_path: Path
) -> None:
    rows = task_rows()
    rows[4] = rows[4] | {"prompt": "valve " * 600}
    task = write_rows(tmp_path / "task.jsonl", rows)
    with pytest.raises(TaskError, match=r"task\.jsonl, line 5: \d+ tokens do not fit"):
        flyweight.write_data(str(tiny_llama), tmp_path / "out.jsonl", task=task)
    assert list(tmp_path.iterdir()) == [task]


def test_a_task_whose_train_holds_test_is_refused_by_line(tiny_llama: Path, tmp_path: Path) -> None:
    rows = task_rows()
    rows[4] = rows[4] | {"prompt": "  " + rows[27]["prompt"].upper()}
    task = write_rows(tmp_path / "task.jsonl", rows)
    with pytest.raises(TaskError, match=r"task.jsonl, line 5: .* task.jsonl, line 28"):
        flyweight.write_data(str(tiny_llama), tmp_path / "out.jsonl", task=task)
    assert list(tmp_path.iterdir()) == [task]


# --------------------------------------------------------------------- the filters

words = st.lists(
    st.sampled_from(["pump", "valve", "leaks", "hot", "the", "near", "1", "2", "3"]), max_size=8
)
tries = st.builds(
    lambda said, answer, sure: Written(item(" ".join(said) or " x", answer), "", sure),
    words,
    st.sampled_from(["oil", "hot"]),
    st.floats(-2, 0),
)


def item(text: str, answer: str | None = "oil") -> Item:
    return item_from({"prompt": text, "answer": answer}, 1, "here")


@settings(deadline=None, max_examples=50)
@given(st.lists(tries, max_size=30), st.lists(words, max_size=4), st.floats(-1, 0))
def test_what_is_kept_is_new_sure_and_far_from_held_out_items(
    given_: list[Written], held: list[list[str]], least: float
) -> None:
    held_out = [item(" ".join(each) or "y", "hot") for each in held]
    train = [item("the pump leaks near the valve")]
    sieve = Sieve(train, held_out, least)
    for one in given_:
        sieve.take(Written(one.item, sieve.look(one.item), one.sure))
    assert len(sieve.kept) + sieve.dropped.total() == len(given_)
    sure = {id(one.item): one.sure for one in given_}
    assert all(sure[id(each)] >= least for each in sieve.kept)
    everything = [asked(each) for each in [*train, *held_out, *sieve.kept]]
    assert all(everything.count(asked(each)) == 1 for each in sieve.kept)
    for place, each in enumerate(sieve.kept):
        others = [*held_out, *(o for o in sieve.kept[:place] if o.answer == each.answer)]
        mine = grams(str(each.messages[0]["content"]))
        for other in others:
            theirs = grams(str(other.messages[0]["content"]))
            assert len(mine & theirs) / len(mine | theirs) < NEAR
    assert not list(near_copies(sieve.kept, held_out))


def test_every_reason_is_counted_with_an_example() -> None:
    sieve = Sieve([item("the pump is hot")], [item("the valve of hall 2 is leaking oil")], -0.5)
    for text in ("", "The  PUMP is hot", "the valve of hall 2 is leaking oill"):
        sieve.take(Written(item(text or "x"), sieve.look(item(text)) if text else "empty"))
    for sure in (-0.1, -0.1, -0.9):
        sieve.take(Written(item(f"a motor stopped {sure}"), "", sure))
    assert sieve.dropped == {"empty": 1, "copy": 1, "leak": 1, "repeated": 1, "unsure": 1}
    assert sieve.examples.keys() == sieve.dropped.keys()
    assert len(sieve.kept) == 1


def test_sure_enough_tells_right_from_wrong_or_is_a_quantile() -> None:
    right = [-0.1 - i / 1000 for i in range(50)]
    wrong = [-0.9 - i / 1000 for i in range(10)]
    least, told = sure_enough([*right, *wrong], [True] * 50 + [False] * 10)
    assert least == min(right)
    assert "100% of 50 right" in told
    assert "0% of 10 wrong" in told
    sure = np.random.default_rng(0).uniform(-1, 0, 1000)
    least, _ = sure_enough(sure.tolist(), [None] * 1000)
    assert np.mean(sure < least) == pytest.approx(UNSURE, abs=0.002)


@pytest.mark.parametrize(
    ("said", "ended", "text"),
    [
        (" pump 3\nAnswer: leak", False, "Q: pump 3\nAnswer:"),
        (" pump 3", True, None),
    ],
)
def test_without_a_template_a_prompt_ends_as_all_prompts_do(
    said: str, ended: bool, text: str | None, teacher: str
) -> None:
    from flyweight.checkpoint import open_checkpoint

    tokenizer = open_checkpoint(teacher).tokenizer()
    tokenizer.chat_template = None
    drawer = Drawer(tokenizer, [item(f"Q: {name}\nAnswer:") for name in ("a pump", "valve 2")])
    assert (drawer.begin, drawer.end) == ("Q:", "\nAnswer:")
    draw = drawer.draw("own", random.Random(0))
    assert draw is not None
    assert draw.read(said, ended) == text


def test_where_no_word_is_to_go_on_from_a_prompt_begins_as_its_own(teacher: str) -> None:
    from flyweight.checkpoint import open_checkpoint

    blank = item_from({"messages": [{"role": "user", "content": " "}]}, 1, "here")
    drawer = Drawer(open_checkpoint(teacher).tokenizer(), [blank])
    draws = [drawer.draw(way, random.Random(0)) for way in ("continued", "own")]
    going_on, own = (draw.ids if draw else [] for draw in draws)
    assert going_on == own != []


@pytest.mark.parametrize(
    ("said", "text"), [('["a \\ud83d\\ude00"]', "a 😀"), ('["a \\ud83d"]', None), ('"open', None)]
)
def test_what_is_listed_is_a_string_that_can_be_written(said: str, text: str | None) -> None:
    assert _json_string(said, True) == text


@pytest.mark.parametrize(("role", "form"), [("user", "prompt"), ("system", "messages")])
def test_a_new_item_keeps_the_role_of_its_seed(role: str, form: str) -> None:
    told = [{"role": role, "content": "the pump is hot"}]
    new = _new(item_from({"messages": told, "answer": "hot"}, 1, "here"), "prompt", "teacher")
    assert list(item_from(new, 1, "here").messages) == told
    assert form in new
