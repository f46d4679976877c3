"""A service in a process of its own, as a person starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(
    *models: Path,
    options: Sequence[str] = (),
    keys: Path | None = None,
    state: Path | None = None,
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of `flyweight serve`, and its process; ended at the end.

    `state` is its state folder, one that vanishes if not given.
    """
    command = [sys.executable, "-m", "flyweight", "serve", *map(str, models), "--port", "0"]
    own = tempfile.TemporaryDirectory()
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "400"}
    environment["FLYWEIGHT_STATE"] = str(state or own.name)
    if keys is not None:
        environment["FLYWEIGHT_KEYS"] = str(keys)
    process = subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        told = ""
        while not (found := re.search(r"on (http://\S+)", told)):
            line = process.stdout.readline()
            assert line, f"it ended: {told}"
            told += line
        yield found[1], process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        own.cleanup()


__all__ = ["serving"]
