"""What a job has done and is doing, a line for each event: what `flyweight status` reads.

Lines are only ever added; one that a kill cut short is skipped by the reader.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flyweight.folder import disk_errors

JOURNAL = "journal.jsonl"
STEP = 1.0  # seconds between lines about the progress of one stage


class Journal:
    """The journal of a work folder."""

    def __init__(self, root: Path) -> None:
        self.path = root / JOURNAL
        self._last = 0.0

    def write(self, event: str, **facts: Any) -> None:
        """Add one event."""
        line = {"event": event, "at": datetime.now(UTC).isoformat(timespec="milliseconds"), **facts}
        # a line that was cut short has no end: begin a new one
        with disk_errors(self.path), self.path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                start = "" if file.read(1) == b"\n" else "\n"
            else:
                start = ""
            file.write(f"{start}{json.dumps(line, default=str)}\n".encode())

    def start(self, options: dict[str, Any], quote: dict[str, Any] | None) -> None:
        self.write("start", pid=os.getpid(), options=options, quote=quote)

    def began(self, kind: str, name: str) -> None:
        self.write("began", kind=kind, name=name)

    def ended(self, kind: str, name: str, seconds: float) -> None:
        self.write("ended", kind=kind, name=name, seconds=round(seconds, 3))

    def found(self, kind: str, name: str) -> None:
        """A stage was found done already."""
        self.write("found", kind=kind, name=name)

    def moved(self, title: str, done: float, total: float | None) -> None:
        """How far what is shown in a bar has come; written at most once in STEP seconds."""
        now = time.monotonic()
        if now - self._last >= STEP:
            self._last = now
            self.write("moved", title=title, done=done, total=total)

    def events(self) -> Iterator[dict[str, Any]]:
        """Every whole event, oldest first."""
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                yield event

    def last_process(self) -> str:
        """ "process 123" of whoever started last."""
        pids = [event.get("pid") for event in self.events() if event["event"] == "start"]
        return f"process {pids[-1]}" if pids and pids[-1] else "unknown"
