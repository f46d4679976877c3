"""What the journal of a job says, put together for a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flyweight.errors import FolderError
from flyweight.folder import CARD, bytes_in, read_card
from flyweight.make import words
from flyweight.make.journal import JOURNAL, Journal
from flyweight.make.show_quote import NAMES
from flyweight.make.store import WORK, is_locked, work_folder

_ENDS = ("interrupted", "failed", "handed over")


def read_status(out: Path) -> dict[str, Any]:
    """The state of the job for `out`; FolderError where there was none.

    `state` is running, stopped (interrupted, killed or failed) or finished. Seconds are of all
    runs of the job together, with what it found done by jobs of other wishes; `remaining` is what
    the quote says is left of the likely course.
    """
    root = work_folder(out)
    events = list(Journal(root).events())
    if not events:
        if (out / CARD).exists():
            card = read_card(out)
            return {"out": str(out), "state": "finished", "verdict": card.verdict.sentence,
                    "word": card.verdict.word, "stages": [], "made": card.made}  # fmt: skip
        raise FolderError(f"{out}: no job was run for this folder. {_remedy(out)}.")
    started = next((event for event in reversed(events) if event["event"] == "start"), events[0])
    this_run = events[events.index(started) :]
    last = this_run[-1]["event"]
    running = is_locked(root)
    state = "running" if running else "finished" if last == "handed over" else "stopped"
    quoted = {
        each["name"]: each["quoted"] for each in (started.get("quote") or {}).get("stages", [])
    }
    taken = _taken(events, _names(events, started))
    found: dict[str, Any] = {
        "out": str(out),
        "state": state,
        "process": started.get("pid") if running else None,
        "started": started["at"],
        "changed": this_run[-1]["at"],
        "now": _now(this_run) if running else None,
        "stages": [
            {"name": name, "quoted": quoted.get(name), "taken": taken.get(name)}
            for name in dict.fromkeys([*quoted, *taken])
        ],
        "taken": sum(taken.values()),
        "disk": bytes_in(root),
    }
    if state != "finished":
        left = (max(0.0, quoted[name] - taken.get(name, 0.0)) for name in quoted)
        found["remaining"] = sum(left)
    if last == "failed":
        found["error"] = this_run[-1].get("error")
    if state == "finished":
        found |= {"word": this_run[-1]["verdict"], "verdict": this_run[-1]["sentence"]}
    return found


def show_status(found: dict[str, Any], console: Console | None = None) -> None:
    """Print what `read_status` found."""
    console = console or Console(highlight=False, emoji=False)
    state = found["state"]
    process = f", process {found['process']}" if found.get("process") else ""
    console.print(f"[bold]{escape(found['out'])}[/bold]: {state}{process}")
    if found["stages"]:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("stage")
        table.add_column("quoted", justify="right")
        table.add_column("taken", justify="right")
        for stage in found["stages"]:
            cells = (stage["quoted"], stage["taken"])
            said = ("" if value is None else words.seconds(value) for value in cells)
            table.add_row(NAMES.get(stage["name"], stage["name"]), *said)
        console.print(table)
        console.print(
            f"{words.seconds(found['taken'])} so far, {words.size(found['disk'])} in "
            f"{work_folder(Path(found['out'])).name}, last change {words.moment(found['changed'])}",
            markup=False,
        )
    if now := found.get("now"):
        total = f" of {now['total']:g}" if now.get("total") else ""
        done = f" {now['done']:g}{total}" if now.get("done") is not None else ""
        console.print(f"Now: {now['title']}{done}", markup=False)
    if state != "finished":
        console.print(f"About {words.seconds(found['remaining'])} left of the likely course.")
    if state == "stopped":
        if found.get("error"):
            console.print(f"It ended with: {found['error']}", markup=False)
        console.print("The same `flyweight make` command goes on from there.")
    if found.get("verdict"):
        console.print(f"[bold]{found['word'].upper()}[/bold]: {escape(found['verdict'])}")


def _remedy(out: Path) -> str:
    """What to ask for in place of a folder without a job: the jobs in it, if there are any."""
    inside = sorted(journal.parent.name for journal in out.glob(f"*{WORK}/{JOURNAL}"))
    if not inside:
        return f"Run `flyweight make --out {out}`"
    return f"Give one in it: {', '.join(str(out / name.removesuffix(WORK)) for name in inside)}"


def _names(events: list[dict[str, Any]], started: dict[str, Any]) -> set[str]:
    """The stages that runs of the same wishes as the one that `started` have asked for."""
    names, same = set[str](), False
    for event in events:
        if event["event"] == "start":
            same = event.get("options") == started.get("options")
        elif same and "name" in event:
            names.add(event["name"])
    return names


def _taken(events: list[dict[str, Any]], names: set[str]) -> dict[str, float]:
    """Seconds by kind of these stages: of ended ones; a training's line says its whole time."""
    by_name: dict[str, tuple[str, float]] = {}
    for event in events:
        if event["event"] == "ended" and event["name"] in names:
            by_name[event["name"]] = (event["kind"], event["seconds"])
    total: dict[str, float] = {}
    for kind, seconds in by_name.values():
        total[kind] = total.get(kind, 0.0) + seconds
    return total


def _now(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What is being done: the newest bar, else the newest stage that began."""
    for event in reversed(events):
        if event["event"] == "moved":
            return {key: event.get(key) for key in ("title", "done", "total")}
        if event["event"] == "began":
            return {"title": NAMES.get(event["kind"], event["kind"]), "done": None, "total": None}
        if event["event"] in _ENDS:
            return None
    return None
