"""A teacher's record on disk: what it holds, and what becomes of it when it is harmed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from flyweight import folder
from flyweight.distill import trainer, wish
from flyweight.distill.cache import Record, record
from flyweight.distill.divergences import top_of
from flyweight.distill.losses import Distillation
from flyweight.distill.packed import bytes_a_token, left_out, pack, rounding, unpack
from flyweight.distill.teacher import SaidRow, record_teacher
from flyweight.distill.trainer import Row, Schedule, collate, train
from flyweight.distill.wish import Wish
from flyweight.errors import FolderError, NoSpace, OptionError, TaskError, TeacherError

Build = Callable[..., Any]
SOURCE = {"teacher": "abc"}
FORK = multiprocessing.get_context("fork")


def rows_of(count: int = 30, seed: int = 0) -> list[Row]:
    """Rows of unlike lengths with prompts at weight 0, some of them without a wanted token."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        length = int(generator.integers(1, 14))
        weights = np.ones(length, dtype=np.float32)
        weights[: length if number % 7 == 3 else 2] = 0
        made.append({"input_ids": generator.integers(3, 80, length), "weights": weights})
    return made


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wish, "SHARD_TOKENS", 40)


@pytest.fixture
def teacher(small_model: Build) -> Any:
    return small_model(seed=3, num_hidden_layers=2)


def wish_of(rows: list[Row], **changes: Any) -> Wish:
    return Wish(**{"rows": rows, "source": SOURCE, "vocabulary": 80, "k": 12, **changes})


def never() -> Any:
    raise AssertionError("the teacher was asked again")


def shard_files(place: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(place.glob("shard-*"))}


@torch.inference_mode()
def by_torch(model: Any, row: Row) -> torch.Tensor:
    """The log-probabilities [N, V] before the wanted tokens of a row, in double precision."""
    logits = model(torch.as_tensor(row["input_ids"])[None].long()).logits[0, :-1]
    return logits[torch.as_tensor(row["weights"])[1:] != 0].double().log_softmax(-1)


# what it holds


def test_what_is_read_is_torchs_softmax(
    teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "fast_dtype", lambda device="cpu": torch.float32)
    rows = rows_of()
    found = record(tmp_path / "r", wish_of(rows), lambda: teacher)
    assert len(found.shards) > 2
    nats, hidden, tails = [], [], []
    for row, said in zip(rows, found.rows(), strict=True):
        wanted = by_torch(teacher, row)
        values, places = wanted.topk(12, dim=-1)
        tail = wanted.exp().scatter(-1, said["indices"].long(), 0).sum(-1)
        assert said["input_ids"] is row["input_ids"]
        assert said["top"].shape == said["indices"].shape == (len(wanted), 12)
        torch.testing.assert_close(wanted.gather(-1, said["indices"].long()), values)
        assert (said["indices"] == places).float().mean() > 0.99 or not len(wanted)
        torch.testing.assert_close(said["tail"].double(), tail.log(), rtol=1e-5, atol=1e-5)
        reach = (values[:, :1] - values[:, -1:]) / 255
        assert ((said["top"].double() - values).abs() <= reach + 1e-5).all()
        whole = said["top"].double().exp().sum(-1) + said["tail"].double().exp()
        torch.testing.assert_close(whole, torch.ones_like(whole))
        kept = torch.cat([said["top"].double(), said["tail"].double()[:, None]], -1)
        asked = torch.cat([values, tail.log()[:, None]], -1)
        nats += (asked.exp() * (asked - kept)).sum(-1).tolist()
        inside = wanted.scatter(-1, places, -torch.inf) - tail.log()[:, None]  # of the tail alone
        uneven = torch.where(inside.exp() > 0, inside.exp() * (inside + np.log(68)), 0).sum(-1)
        hidden += (tail * uneven).tolist()
        tails += tail.tolist()
    off = found.reach
    assert off.tokens == len(tails) == found.wish.tokens
    assert off.tail / off.tokens == pytest.approx(np.mean(tails), rel=1e-4)
    assert off.most_tail == pytest.approx(max(tails), rel=1e-4)
    assert 0.95 < off.rounding / off.tokens / np.mean(nats) < 1.3  # and of what is drawn
    assert max(nats) < 1.05 * off.most_rounding < 1e-3
    assert np.mean(hidden) <= off.hidden / off.tokens < 20 * np.mean(hidden)
    assert "nats" in str(found)


def test_a_confident_teachers_tail_is_exact() -> None:
    """Down to a mass that 1 - sum cannot see, and up to one that leaves nothing to the top."""
    for gap in (0.0, 5.0, 18.0, 40.0):
        logits = torch.zeros(3, 500)
        logits[:, 7] = gap
        logits[:, 8] = gap / 2
        exact = logits.double().log_softmax(-1)
        top = top_of(logits.clone(), 4)
        columns = pack(top, 500)
        tail = exact.exp().scatter(-1, top.indices, 0).sum(-1).log()
        kept = unpack(columns, slice(None), "tail")
        torch.testing.assert_close(kept.double(), tail, rtol=1e-6, atol=1e-6)
        likeliest = unpack(columns, slice(None), "top")[:, 0].double()
        # off by as much of what it leaves to the others as these are rounded
        torch.testing.assert_close(likeliest, exact[:, 7], rtol=gap / 510 + 1e-5, atol=1e-7)


@pytest.mark.parametrize("vocabulary", [40, 65_536, 65_537, 128_256, 262_144])
@pytest.mark.parametrize("k", [1, 3, 64])
def test_every_index_survives_in_any_vocabulary(vocabulary: int, k: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(9, vocabulary, generator=generator)
    logits[:, -1] = 9.0  # the last token is said as well
    top = top_of(logits, min(k, vocabulary))
    columns = pack(top, vocabulary)
    assert torch.equal(unpack(columns, slice(2, 7), "indices").long(), top.indices[2:7])
    size = sum(array.nbytes for array in columns.values())
    assert size == 9 * bytes_a_token(k, vocabulary)
    assert size <= 9 * 300
    assert rounding(top, columns).max() < 1e-4


def test_logits_that_forbid_a_token_are_kept() -> None:
    logits = torch.tensor([[2.0, 1.0, -torch.inf, -torch.inf], [0.0, 0.0, 0.0, 0.0]])
    top = top_of(logits.clone(), 4)
    kept = unpack(pack(top, 4), slice(None), "top")
    torch.testing.assert_close(kept.exp(), logits.softmax(-1), rtol=0.2, atol=1e-6)
    torch.testing.assert_close(kept[1], torch.full((4,), -np.log(4)).float())


def test_the_bound_on_what_is_hidden_holds_for_even_students() -> None:
    logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0)) * 2
    p, top = logits.double().log_softmax(-1), top_of(logits.clone(), 30)
    mass, bound = left_out(top, 1000)
    q = torch.zeros(50, 1000).double().log_softmax(-1)
    whole = (p.exp() * (p - q)).sum(-1)
    assert top.tail is not None
    events_p = torch.cat([top.log_p, top.tail[:, None]], -1).double()
    tail_q = torch.full((50, 1), np.log(0.97)).double()
    events_q = torch.cat([q.gather(-1, top.indices), tail_q], -1)
    lacking = whole - (events_p.exp() * (events_p - events_q)).sum(-1)
    assert (lacking >= -1e-6).all()
    assert (lacking <= bound + 1e-6).all()
    assert (mass > 0.1).all()


# who uses it


def test_a_second_call_asks_no_teacher(teacher: Any, tmp_path: Path) -> None:
    rows = rows_of()
    first = record(tmp_path / "r", wish_of(rows), lambda: teacher)
    again = record(tmp_path / "r", wish_of(rows_of()), never)
    assert (first.written, again.written) == (len(first.shards), 0)
    assert again.seconds == first.seconds > 0
    for one, other in zip(first.rows(), again.rows(), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("top", "indices", "tail"))


def test_memory_and_disk_say_the_same(teacher: Any, tmp_path: Path) -> None:
    rows = rows_of()
    on_disk = record(tmp_path / "r", wish_of(rows), lambda: teacher).rows()
    for one, other in zip(record_teacher(teacher, rows, 12), on_disk, strict=True):
        assert torch.equal(one["indices"], other["indices"])
        torch.testing.assert_close(one["top"], other["top"], rtol=1e-2, atol=1e-2)


def test_rows_are_read_when_asked_for(teacher: Any, tmp_path: Path) -> None:
    said = record(tmp_path / "r", wish_of(rows_of()), lambda: teacher).rows()
    row = said[0]
    assert isinstance(row, SaidRow)
    assert set(row) == {"input_ids", "weights"}  # nothing else is held
    assert "top" in row
    assert row.get("tail") is not None
    assert row.get("nothing") is None
    with pytest.raises(KeyError):
        row["nothing"]
    assert isinstance(row._columns["steps"].base.base, np.memmap)  # pyright: ignore
    batch = collate(said[:8])
    tokens = int((batch["weights"][:, 1:] != 0).sum())
    assert batch["top"].shape == batch["indices"].shape == (tokens, 12)


def test_a_student_learns_the_same_from_disk_twice(
    teacher: Any, small_model: Build, tmp_path: Path
) -> None:
    schedule = Schedule(4, 8)
    told = []
    for _ in range(2):
        said = record(tmp_path / "r", wish_of(rows_of()), lambda: teacher).rows()
        model = small_model(num_hidden_layers=1)
        train(model, said, Distillation(1.0), schedule, "Distilling")
        told.append(model.state_dict())
    assert all(torch.equal(told[0][name], told[1][name]) for name in told[0])


@pytest.mark.parametrize(
    "change",
    [
        {"source": {"teacher": "abd"}},
        {"k": 13},
        {"vocabulary": 81},
        {"rows": rows_of(seed=1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_all_that_decides_it_is_in_its_name(change: dict[str, Any]) -> None:
    assert wish_of(rows_of()).name == wish_of(rows_of()).name
    assert wish_of(rows_of()).name != wish_of(**{"rows": rows_of(), **change}).name


def test_which_tokens_are_wanted_is_in_its_name_and_how_much_is_not() -> None:
    rows, heavier = rows_of(), rows_of()
    heavier[1] = heavier[1] | {"weights": heavier[1]["weights"] * 3}
    assert wish_of(heavier).name == wish_of(rows).name
    rows[0] = rows[0] | {"weights": rows[0]["weights"] + 0.5}
    assert wish_of(rows).name != wish_of(rows_of()).name


# harm


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)


def in_its_header(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b"U8", b"F9", 1))


def swapped(path: Path) -> None:
    shutil.copy(path.with_name("shard-00000.safetensors"), path)


@pytest.mark.parametrize(
    "harm",
    [cut_short, one_bit, in_its_header, swapped, Path.unlink],
    ids=lambda harm: harm.__name__,
)
def test_a_harmed_shard_is_written_again_alone(
    harm: Callable[[Path], None], teacher: Any, tmp_path: Path
) -> None:
    place = tmp_path / "r"
    record(place, wish_of(rows_of()), lambda: teacher)
    before, told = shard_files(place), (place / "complete.json").read_bytes()
    times = {name: (place / name).stat().st_mtime_ns for name in before}
    harm(place / "shard-00001.safetensors")
    mended = record(place, wish_of(rows_of()), lambda: teacher)
    assert mended.written == 1
    assert shard_files(place) == before
    assert (place / "complete.json").read_bytes() == told
    kept = {name for name in before if (place / name).stat().st_mtime_ns == times[name]}
    assert kept == set(before) - {"shard-00001.safetensors"}
    assert record(place, wish_of(rows_of()), never).written == 0


@pytest.mark.parametrize("seal", [None, b"", b"{}", b"[1]", b'{"name": 1, "shards": 2}'])
def test_without_its_seal_nothing_is_recorded_twice(
    seal: bytes | None, teacher: Any, tmp_path: Path
) -> None:
    record(tmp_path, wish_of(rows_of()), lambda: teacher)
    told = tmp_path / "complete.json"
    told.unlink() if seal is None else told.write_bytes(seal)
    assert record(tmp_path, wish_of(rows_of()), never).written == 0
    assert len(json.loads(told.read_bytes())["shards"]) > 2


def test_shards_of_another_record_are_not_taken_for_ones_own(teacher: Any, tmp_path: Path) -> None:
    record(tmp_path, wish_of(rows_of()), lambda: teacher)
    other = record(tmp_path, wish_of(rows_of(), source={"teacher": "x"}), lambda: teacher)
    assert other.written == len(other.shards)


class Slow:
    """A teacher that says when it begins, and takes its time."""

    def __init__(self, model: Any, log: Path) -> None:
        self.model, self.log = model, log

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    @property
    def base_model(self) -> Any:
        with self.log.open("a") as file:
            file.write("x")
        time.sleep(0.05)
        return self.model.base_model


def _child(place: Path, teacher: Any, log: Path) -> None:
    torch.set_num_threads(1)
    record(place, wish_of(rows_of(60)), lambda: Slow(teacher, log))


def test_killed_it_goes_on_to_the_same_bits(teacher: Any, tmp_path: Path) -> None:
    torch.set_num_threads(1)  # a fork of a process with other threads in torch would hang
    whole = record(tmp_path / "whole", wish_of(rows_of(60)), lambda: teacher)
    place, log = tmp_path / "r", tmp_path / "log"
    times = 0
    while len(shard_files(place)) < len(whole.shards) - 1 and times < 20:
        had = len(shard_files(place))
        child = FORK.Process(target=_child, args=(place, teacher, log))
        child.start()
        while child.is_alive() and len(shard_files(place)) < had + 1 + times % 2:
            time.sleep(0.002)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert not (place / "complete.json").exists()
        times += 1
    assert times > 1
    (place / ".shard-00007.safetensors").write_bytes(b"half")  # as a kill leaves behind
    ended = record(place, wish_of(rows_of(60)), lambda: teacher)
    assert 0 < ended.written < len(whole.shards)
    assert shard_files(place) == shard_files(tmp_path / "whole")
    seals = [json.loads((each / "complete.json").read_bytes()) for each in (place, whole.place)]
    assert seals[0]["shards"] == seals[1]["shards"]


def test_two_processes_at_once_write_it_once(teacher: Any, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    children = [
        FORK.Process(target=_child, args=(tmp_path / "r", teacher, tmp_path / "log"))
        for _ in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    found = record(tmp_path / "r", wish_of(rows_of(60)), never)
    assert len((tmp_path / "log").read_text()) == len(found.shards)


def test_a_whole_record_needs_no_lock(teacher: Any, tmp_path: Path) -> None:
    record(tmp_path, wish_of(rows_of()), lambda: teacher)
    with FileLock(tmp_path / "lock"):
        assert record(tmp_path, wish_of(rows_of()), never).written == 0


# room, and bad input


def test_a_budget_says_what_would_fit_before_anything_is_computed(
    teacher: Any, tmp_path: Path
) -> None:
    wanted = wish_of(rows_of())
    room = wanted.bytes(7) + 1
    with pytest.raises(NoSpace, match=r"its top 12 of each, .* the budget is .* a top 7 would fit"):
        record(tmp_path / "r", wanted, never, budget=room)
    assert not (tmp_path / "r").exists()
    with pytest.raises(NoSpace, match="fewer items would fit"):
        record(tmp_path / "r", wanted, never, budget=100)
    fitting = wish_of(rows_of(), k=7)
    found = record(tmp_path / "r", fitting, lambda: teacher, budget=room)
    taken = sum(file.stat().st_size for file in found.place.iterdir())
    assert taken <= room
    record(tmp_path / "r", fitting, never, budget=10)  # what is there already costs nothing


def test_a_full_disk_is_found_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wish, "free_bytes", lambda place: 3000)
    with pytest.raises(NoSpace, match=r"the disk under .* has room for 0\.0 MB"):
        record(tmp_path / "r", wish_of(rows_of()), never)
    assert not (tmp_path / "r").exists()
    assert folder.free_bytes(tmp_path / "not" / "yet") == pytest.approx(
        shutil.disk_usage(tmp_path).free, rel=0.1
    )


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("mine")
    with pytest.raises(FolderError, match="Choose another folder"):
        record(tmp_path / "r", wish_of(rows_of()), never)
    assert (tmp_path / "r").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"k": 0}, OptionError, "above 0"),
        ({"rows": []}, TaskError, "no token to learn"),
        ({"rows": [rows_of(4)[3]]}, TaskError, "no token to learn"),
        ({"vocabulary": 50}, TeacherError, r"hold the token \d+, the teacher has 50"),
    ],
    ids=str,
)
def test_what_cannot_be_recorded_is_refused(
    change: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        wish_of(**{"rows": rows_of(), **change})


def test_another_teacher_than_was_said_is_refused(small_model: Build, tmp_path: Path) -> None:
    wider = small_model(vocab_size=96)
    with pytest.raises(TeacherError, match="a head of 96 tokens"):
        record(tmp_path, wish_of(rows_of()), lambda: wider)


def test_a_teacher_of_broken_weights_is_refused(teacher: Any, tmp_path: Path) -> None:
    with torch.no_grad():
        teacher.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(TeacherError, match="no numbers"):
        record(tmp_path, wish_of(rows_of()), lambda: teacher)
    assert shard_files(tmp_path) == {}


def test_a_small_vocabulary_is_recorded_whole(teacher: Any, tmp_path: Path) -> None:
    found: Record = record(tmp_path, wish_of(rows_of(), k=1000), lambda: teacher)
    assert found.wish.k == 80
    assert found.reach.most_tail == found.reach.most_hidden == 0
    for row in found.rows():
        assert all(sorted(line) == list(range(80)) for line in row["indices"].tolist())
