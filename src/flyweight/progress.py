"""What a person sees while it works: rich progress bars, on the terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

# what is said holds names of files and texts of the user's: none of it is markup
console = Console(stderr=True, highlight=False, markup=False, emoji=False)


# title, how much is done, of how much (None: unknown)
Watcher = Callable[[str, float, float | None], None]
_watchers: list[Watcher] = []


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tells `watcher` of every bar that moves within."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


class Bar:
    """A running bar: `advance()` it, `note()` something beside it."""

    def __init__(self, progress: Progress, task: int, title: str, total: float | None) -> None:
        self._progress, self._task = progress, task
        self._title, self._total, self._done = title, total, 0.0

    def advance(self, amount: float = 1) -> None:
        self._progress.advance(self._task, amount)  # type: ignore[arg-type]
        self._done += amount
        for watcher in _watchers:
            watcher(self._title, self._done, self._total)

    def note(self, text: str) -> None:
        self._progress.update(self._task, note=text)  # type: ignore[arg-type]


@contextmanager
def bar(title: str, total: float | None) -> Iterator[Bar]:
    """A progress bar for work of `total` steps; it stays on screen when it is done."""
    columns = (
        TextColumn("{task.description:<34}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(progress, progress.add_task(title, total=total, note=""), title, total)


def track(items: Iterable[T], title: str) -> Iterator[T]:
    """The items, with a bar that moves as they are taken."""
    with bar(title, len(items) if isinstance(items, Sized) else None) as running:
        for item in items:
            yield item
            running.advance()


def say(text: str) -> None:
    """One line for the person who waits."""
    console.print(text)
