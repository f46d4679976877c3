"""Where a model folder goes where nobody says: beside no other job's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flyweight.errors import FolderError
from flyweight.folder import CARD, read_card, sha256_of
from flyweight.make.journal import Journal
from flyweight.make.store import work_folder
from flyweight.tasks.several import combined_sha256


def usual_place(teacher: str, tasks: Sequence[Path]) -> Path:
    """A folder for each task, out/ and its file's name, several joined by +.

    FolderError where it holds a model, or what is known of one, of another teacher or other tasks.
    """
    out = Path("out", "+".join(path.stem for path in tasks))
    for event in reversed([*Journal(work_folder(out)).events()]):
        if event["event"] == "start":
            told = event.get("options") or {}
            wanted = [str(each) for each in told.get("tasks", [])]
            same = [*map(_whole, wanted)] == [*map(_whole, tasks)]
            _refuse_other(out, str(told.get("teacher")), " and ".join(wanted), teacher, same)
            return out
    if (out / CARD).exists():  # its work folder was removed
        card = read_card(out)
        there = all(path.is_file() for path in tasks)  # else it is refused when it is read
        known = {path.stem: sha256_of(path) for path in tasks} if there else {}
        same = not there or combined_sha256(known) == card.task.sha256
        _refuse_other(out, card.teacher.name, f"an earlier {card.task.name}", teacher, same)
    return out


def _refuse_other(out: Path, owner: str, its_task: str, teacher: str, same_tasks: bool) -> None:
    if _whole(owner) != _whole(teacher) or not same_tasks:
        raise FolderError(
            f"{out} belongs to the model of {owner} for {its_task}. Name another folder with "
            "--out, or that one to replace it."
        )


def _whole(path: str | Path) -> Path:
    """One form of a path, however it was given; of a hub name as good as any."""
    return Path(path).resolve()


__all__ = ["usual_place"]
