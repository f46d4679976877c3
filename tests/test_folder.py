"""The model folder: whole or not at all, never over other people's files; one line on failure."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flyweight.checkpoint import open_checkpoint, save_checkpoint
from flyweight.errors import FolderError, NoSpace
from flyweight.folder import (
    CARD,
    MARK,
    _settle,
    _swap,
    check_place,
    check_space,
    disk_errors,
    list_files,
    new_folder,
    read_card,
    sha256_of,
)


def write(out: Path, text: str) -> None:
    with new_folder(out) as folder:
        (folder / "file").write_text(text)


def contents(place: Path) -> dict[str, str]:
    """Every file below a place, hidden ones too."""
    return {
        str(path.relative_to(place)): path.read_text()
        for path in place.rglob("*")
        if path.is_file()
    }


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "file").write_text("new")
        assert not out.exists()
        assert folder.parent == out.parent  # the same disk, so that renaming is one step
    assert contents(tmp_path) == {"deep/out/file": "new", f"deep/out/{MARK}": ""}
    assert oct(out.stat().st_mode & 0o777) == oct(0o777 & ~umask())


def test_a_name_that_leaves_no_room_for_temporary_ones_is_refused_at_once(tmp_path: Path) -> None:
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    for name in ("o" * (longest + 1), "o" * (longest - 14), "ö" * (longest // 2)):
        for out in (tmp_path / name, tmp_path / "not there yet" / name):
            with pytest.raises(FolderError, match=f"cannot write {out}: .*too long"):
                check_place(out)
    write(tmp_path / ("o" * (longest - 15)), "fits")
    assert len(list(tmp_path.iterdir())) == 1


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_our_own_folder_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    (tmp_path / "out" / "left over").touch()
    write(tmp_path / "out", "new")
    assert contents(tmp_path) == {"out/file": "new", f"out/{MARK}": ""}


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "file").read_text() == "new"


@pytest.mark.parametrize("before", ["old", None])
@pytest.mark.parametrize("error", [ValueError("a mistake"), KeyboardInterrupt()])
def test_what_fails_leaves_everything_as_it_was(
    tmp_path: Path, before: str | None, error: BaseException
) -> None:
    if before:
        write(tmp_path / "out", before)
    found = contents(tmp_path)

    def fail() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "file").write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert contents(tmp_path) == found
    assert len(list(tmp_path.iterdir())) == bool(before)


def test_the_old_folder_stays_where_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    removed = tmp_path / "somebody removed it"
    with pytest.raises(FileNotFoundError):
        _swap(removed, tmp_path / "out")
    _settle(removed, tmp_path / "out")
    assert contents(tmp_path) == {"out/file": "old", f"out/{MARK}": ""}


def killed(out: Path, renames: int) -> None:
    """A process that writes a new `out` and is killed after so many renames of folders."""
    told = f"""
import os, pathlib, signal
from flyweight.folder import new_folder
left, rename = [{renames}], pathlib.Path.rename
def dying(path, place):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return rename(path, place)
pathlib.Path.rename = dying
with new_folder(pathlib.Path({str(out)!r})) as folder:
    (folder / "file").write_text("half")
"""
    assert subprocess.run([sys.executable, "-c", told], check=False).returncode == -signal.SIGKILL


def test_ctrl_c_between_two_renames_brings_back_what_was_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", "old")
    found, rename = contents(tmp_path), Path.rename

    def interrupted(path: Path, place: Path) -> Path:
        if place == tmp_path / "out" and (path / MARK).exists() and path.name.count(".") == 2:
            raise KeyboardInterrupt
        return rename(path, place)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", "new")
    assert contents(tmp_path) == found
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("renames", [0, 1])
def test_what_a_killed_process_left_goes_and_what_it_had_put_aside_comes_back(
    tmp_path: Path, renames: int
) -> None:
    other = tmp_path / ".out.work.01234567.lock"  # of another folder
    other.touch()
    write(tmp_path / "out", "old")
    killed(tmp_path / "out", renames)
    assert len(list(tmp_path.iterdir())) > 2
    with new_folder(tmp_path / "out") as folder:
        assert (tmp_path / "out" / "file").read_text() == "old"
        with new_folder(tmp_path / "out") as second:  # the first still lives: it stays
            assert folder.is_dir()
            assert second.is_dir()
        (folder / "file").write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "out"]
    assert contents(tmp_path)["out/file"] == "new"


def test_a_foreign_folder_is_never_replaced(tmp_path: Path) -> None:
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter").write_text("years of work")
    for attempt in (check_place, lambda out: write(out, "new")):
        with pytest.raises(FolderError, match=r"holds files that Flyweight did not write.*Choose"):
            attempt(foreign)
    assert contents(tmp_path) == {"thesis/chapter": "years of work"}


def test_a_file_in_the_way_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / "file" / "deep" / "out"):
        for attempt in (check_place, lambda out: write(out, "new")):
            with pytest.raises(FolderError, match=r"file is a file\. Choose another folder"):
                attempt(out)
    assert contents(tmp_path) == {"file": "mine"}


@pytest.mark.parametrize("out", ["teacher", "teacher/out", "teacher/deep/../out"])
def test_what_is_read_stays_as_it_is(tmp_path: Path, out: str) -> None:
    write(tmp_path / "teacher", "old")
    (tmp_path / "link").symlink_to(tmp_path / "teacher")
    for name in ("teacher", "link"):
        with pytest.raises(FolderError, match=r"which is read\. Choose another folder"):
            check_place(tmp_path / out, "hub/name", tmp_path / name)
    check_place(tmp_path / "teacher-2", "hub/name", tmp_path / "teacher")


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"File name too long\. Choose another folder"):
        write(tmp_path / ("x" * 300), "new")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_place_is_told_before_any_work(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        pytest.skip("needs a user to whom a folder can be closed (this is root)")
    with pytest.raises(FolderError, match=r"closed to you\. Choose another folder"):
        check_place(closed / "out")


def test_room_is_checked_where_the_folder_will_be(tmp_path: Path) -> None:
    check_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(NoSpace, match=r"MB free, 1,000,000,000,000 MB are needed\. Free some room"):
        check_space(tmp_path / "not" / "yet", 10**18)


def test_other_errors_pass_through(tmp_path: Path) -> None:
    for error in (FileNotFoundError(errno.ENOENT, "gone"), ValueError("os error"), OSError("odd")):
        with pytest.raises(type(error)), disk_errors(tmp_path):
            raise error


def save_model(tiny_llama: Path, out: Path) -> None:
    """What the verbs write, in the same order."""
    source = open_checkpoint(tiny_llama)
    model, tokenizer = source.model(), source.tokenizer()
    with new_folder(out) as folder:
        save_checkpoint(model, tokenizer, folder)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 60 kB: the weights do not fit, config.json does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_weights_that_do_not_fit_leave_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    found = contents(tmp_path)
    with pytest.raises(NoSpace, match=r"ran full while writing .*out\. Free some room"):
        save_model(tiny_llama, tmp_path / "out")
    assert contents(tmp_path) == found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 160 kB; skips where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs leave to mount a small disk (root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_old_folder(tiny_llama: Path, small_disk: Path) -> None:
    write(small_disk / "out", "old")
    found = contents(small_disk)
    with pytest.raises(NoSpace, match=r"ran full while writing .*out\. Free some room"):
        save_model(tiny_llama, small_disk / "out")
    assert contents(small_disk) == found


def test_a_tokenizer_that_does_not_fit_leaves_nothing(tiny_llama: Path, small_disk: Path) -> None:
    """The weights fit, what is written after them does not."""
    source = open_checkpoint(tiny_llama)
    tokenizer = source.tokenizer()

    def fill() -> None:
        with new_folder(small_disk / "out") as folder:
            with pytest.raises(OSError, match="No space left"):
                (folder / "weights").write_bytes(b"0" * 1_000_000)
            tokenizer.save_pretrained(folder)

    with pytest.raises(NoSpace, match=r"Free some room"):
        fill()
    assert list(small_disk.iterdir()) == []


def test_files_are_listed_with_their_sizes_and_hashes(tiny_llama: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model(tiny_llama, tmp_path / "out")
    (tmp_path / "out" / CARD).touch()
    listed = list_files(tmp_path / "out")
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(listed)
    assert not {CARD, MARK} & set(listed)
    for name, entry in listed.items():
        data = (tmp_path / "out" / name).read_bytes()
        assert entry.bytes == len(data)
        assert (
            entry.sha256 == hashlib.sha256(data).hexdigest() == sha256_of(tmp_path / "out" / name)
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"has no card\.json\. Give a model folder that"),
        (b"{", r"card\.json: the file: .*JSON.*Make the folder again"),
        (b"", r"card\.json: the file: "),
        (b"\xff\xfe{}", r"card\.json: the file: "),
        (b"{}", r"card\.json: name: Field required"),
        (b'{"nonsense": 1}', r"card\.json: "),
        (b"[]", r"card\.json: the file: "),
    ],
)
def test_a_card_that_cannot_be_read_is_one_line(
    tmp_path: Path, text: bytes | None, message: str
) -> None:
    if text is not None:
        (tmp_path / CARD).write_bytes(text)
    with pytest.raises(FolderError, match=message) as error:
        read_card(tmp_path)
    assert "\n" not in str(error.value)
