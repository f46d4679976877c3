"""The model folder: what verbs exchange. This module alone knows its layout and how it appears.

A folder is written under a temporary name beside its place and renamed when whole, so that
nothing half-written is ever taken for a model. A folder that Flyweight did not make is never
replaced.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
from filelock import BaseFileLock, FileLock, Timeout
from pydantic import ValidationError

from flyweight.card import Card, FileEntry, ItemScores, Part
from flyweight.errors import FolderError, NoSpace, OptionError
from flyweight.sticker_card import Sticker

CARD = "card.json"
SCORES = "scores.json"
MODEL_CARD = "README.md"
REPORT = "report.html"
WEIGHTS = "model.safetensors"
GGUF_NAMES = {  # by bits, the most first
    16: "model-f16.gguf",
    8: "model-q8_0.gguf",
    5: "model-q5_0.gguf",
    4: "model-q4_0.gguf",
}
EYES_NAMES = {16: WEIGHTS, 8: "int8.safetensors"}  # of models with eyes
ONNX_NAMES = {32: "model.onnx", 8: "model-int8.onnx"}  # of encoders
STICKER = "sticker.json"
STICKER_PICTURES = ("sticker.svg", "sticker.png")
MARK = ".flyweight"  # says that the folder is ours to replace
SEAL = "complete.json"  # written last into a folder of results: what it holds is whole
TOKEN = 4  # bytes that tell temporary folders of one place apart
LOCK, OLD = ".lock", ".old"  # beside a temporary folder: held while it is written; what it replaces
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
REFUSED = frozenset({
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG,
    errno.EISDIR, errno.EINVAL, errno.EIO, errno.ELOOP, errno.ENOTEMPTY,
})  # fmt: skip
# files that speak about the others
LEFT_OUT = frozenset({CARD, REPORT, MODEL_CARD, MARK, STICKER, *STICKER_PICTURES})


def check_place(out: Path, *read: str | Path) -> None:
    """FolderError unless a model folder may be written at `out` (new, empty, or ours).

    Folders that are `read` for it (hub names are none) stay as they are: `out` is not in them.
    """
    with disk_errors(out):
        for source in map(Path, read):
            if source.is_dir() and Path(out).resolve().is_relative_to(source.resolve()):
                where = "is" if Path(out).resolve() == source.resolve() else "lies within"
                raise FolderError(f"{out} {where} {source}, which is read. Choose another folder.")
        if out.exists() and not out.is_dir():
            raise FolderError(f"{out} is a file. Choose another folder.")
        if out.is_dir() and any(out.iterdir()) and not (out / MARK).exists():
            raise FolderError(
                f"{out} holds files that Flyweight did not write. Choose another folder or empty "
                "it."
            )
        if out.is_dir() and any(path.is_dir() for path in out.iterdir()):
            raise FolderError(f"{out} holds other folders. Choose another folder.")
        above = out.absolute().parent
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            raise FolderError(f"cannot write {out}: {above} is a file. Choose another folder.")
        if not os.access(above, os.W_OK | os.X_OK):
            raise FolderError(
                f"cannot write {out}: {above} is closed to you. Choose another folder."
            )
        with suppress(FileNotFoundError):  # the longest name that will be used is too long, or not
            _beside(above / _scratch(out.absolute().name, "0" * 2 * TOKEN), LOCK).lstat()


def free_bytes(place: Path) -> int:
    """Bytes that are free on the disk under `place`, which need not be there yet."""
    here = place.absolute()
    while not here.exists():
        here = here.parent
    return shutil.disk_usage(here).free


def check_space(place: Path, wanted: int) -> None:
    """NoSpace unless the disk under `place` has `wanted` bytes free."""
    free = free_bytes(place)
    if free < wanted:
        raise NoSpace(
            f"the disk under {place} has {free / 1e6:,.0f} MB free, {wanted / 1e6:,.0f} MB are "
            "needed. Free some room or choose another folder."
        )


def state_folder() -> Path:
    """Where what is known of the user's machines and tests lies (FLYWEIGHT_STATE overrides)."""
    return Path(os.environ.get("FLYWEIGHT_STATE") or platformdirs.user_state_dir("flyweight"))


def make_place(place: Path) -> None:
    """A folder, new or there already; FolderError where there can be none."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(
            f"cannot write {place}: {error.strerror}. Choose another folder."
        ) from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, in a new folder if need be: at any moment it is all there or as before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content if isinstance(content, bytes) else content.encode())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def bytes_of(size: str, option: str) -> int:
    """The bytes of "800kB", "2 MB" or "1.5GB" (powers of ten; "MiB" of two). OptionError else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)[bB]?\s*", size)
    if not found or float(found[1]) == 0:
        raise OptionError(f"{option} is {size!r}: give a size such as 800kB, 2MB or 1.5GB.")
    step = 1024 if found[3] else 1000
    return int(float(found[1]) * step ** " kmgt".index(found[2].lower() or " "))


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well, and vanishes when not.

    What a killed process left of its own is removed by the next that writes there.
    """
    out = out.absolute()
    check_place(out)
    scratch = out.with_name(_scratch(out.name, secrets.token_hex(TOKEN)))
    lock = FileLock(_beside(scratch, LOCK), timeout=10)  # whoever clears may hold it for an instant
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear(out)
        lock.acquire()
    try:
        with disk_errors(out):
            scratch.mkdir(mode=0o700)
            yield scratch
            (scratch / MARK).touch()
            _open_to_all(scratch)
            _swap(scratch, out)
    finally:
        _settle(scratch, out)
        _unlock(lock)


def _clear(out: Path) -> None:
    """Settle what processes left that were killed while they wrote `out`: their locks are free."""
    token = "[0-9a-f]" * 2 * TOKEN
    for place in out.parent.glob(f".{glob.escape(out.name)}.{token}{LOCK}"):
        lock, scratch = FileLock(place), place.with_name(place.name.removesuffix(LOCK))
        try:
            lock.acquire(timeout=0)
        except (Timeout, PermissionError):  # at work, or another user's
            continue
        _settle(scratch, out)
        _unlock(lock)


def _settle(scratch: Path, out: Path) -> None:
    """Remove what a write leaves, however it ended; what it had put aside comes back if need be."""
    old = _beside(scratch, OLD)
    if old.exists() and not out.exists():
        old.rename(out)
    for left in (old, scratch):
        shutil.rmtree(left, ignore_errors=True)


def _unlock(lock: BaseFileLock) -> None:
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


def _scratch(name: str, token: str) -> str:
    return f".{name}.{token}"


def _beside(scratch: Path, ending: str) -> Path:
    return scratch.with_name(scratch.name + ending)


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turns the errors of writing below `place` into NoSpace or FolderError."""
    try:
        yield
    except Exception as error:
        number = _system_error(error)
        if number in FULL:
            raise NoSpace(
                f"the disk ran full while writing {place}. Free some room and run again."
            ) from error
        if number in REFUSED:
            raise FolderError(
                f"cannot write {place}: {os.strerror(number)}. Choose another folder."
            ) from error
        raise


def _system_error(error: Exception) -> int:
    """The number of the system's error (0: none); Rust libraries only tell it in their text."""
    if isinstance(error, OSError):
        return error.errno or 0
    if "PytorchStreamWriter failed" in str(error):  # torch.save tells no number
        return errno.ENOSPC
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told.group(1)) if told else 0


def _open_to_all(folder: Path) -> None:
    """The usual modes: libraries write some files for the owner only, and so was the folder."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for path in folder.iterdir():
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _swap(scratch: Path, out: Path) -> None:
    """`scratch` takes the place of `out`; what was there is put aside for `_settle`."""
    if out.exists():
        out.rename(_beside(scratch, OLD))
    scratch.rename(out)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder; 0 where there is none. Others may be at work in it."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total


def seal(folder: Path, **facts: Any) -> None:
    """Declare a folder of results whole: size and hash of every file, and `facts`, written last."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / SEAL
    }
    write_whole(folder / SEAL, json.dumps(facts | {"files": files}, indent=1))


def read_seal(folder: Path) -> dict[str, Any] | None:
    """The facts of a sealed folder; None where it is not sealed or a file is not as it was."""
    try:
        told = json.loads((folder / SEAL).read_bytes())
        whole = all(
            (folder / name).stat().st_size == entry["bytes"]
            and sha256_of(folder / name) == entry["sha256"]
            for name, entry in told.pop("files").items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return told if whole else None


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Size and hash of every file of a model folder, but those that speak about the others."""
    return {
        path.name: FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in LEFT_OUT
    }


def write_card(folder: Path, card: Card) -> None:
    """Write `card.json` of a folder, whole or not at all."""
    write_whole(folder / CARD, card.model_dump_json(indent=2) + "\n")


def write_sticker(folder: Path, sticker: Sticker, svg: str, png: bytes) -> None:
    """Write a sticker and its pictures, each whole or not at all. Raises FolderError, NoSpace."""
    parts = {STICKER: (sticker.model_dump_json(indent=2) + "\n").encode()}
    parts |= dict(zip(STICKER_PICTURES, (svg.encode(), png), strict=True))
    with disk_errors(folder):
        for name, content in parts.items():
            write_whole(folder / name, content)


def write_scores(folder: Path, scores: ItemScores) -> None:
    """Write `scores.json` into a folder that is being made."""
    (folder / SCORES).write_text(scores.model_dump_json() + "\n", encoding="utf-8")


def read_card(folder: Path) -> Card:
    """The card of a model folder; FolderError where there is none or it cannot be read."""
    return _read_part(folder, CARD, Card)


def read_scores(folder: Path) -> ItemScores:
    """The scores of a model folder's test items; FolderError as for `read_card`."""
    return _read_part(folder, SCORES, ItemScores)


P = TypeVar("P", bound=Part)


def _read_part(folder: Path, name: str, kind: type[P]) -> P:
    path = Path(folder) / name
    if not path.is_file():
        what = f"has no {name}" if Path(folder).is_dir() else "is no folder"
        raise FolderError(f"{folder} {what}. Give a model folder that `flyweight make` wrote.")
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise FolderError(f"{path}: {where}: {first['msg']}. Make the folder again.") from error
