"""The verb `status`: what a job is doing, or how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def status(out: Path, *, json: bool = False) -> dict[str, Any]:
    """Show a running, stopped or finished job.

    Args:
        out: The model folder that was given to `make` as --out.
        json: Print JSON instead of a table.

    Returns:
        The state, the stages with their quoted and taken seconds, and the verdict if there is one.

    Raises:
        FlyweightError: No job was ever run for this folder.
    """
    from json import dumps

    from flyweight.make.progress_report import read_status, show_status

    found = read_status(Path(out))
    if json:
        print(dumps(found, indent=2))
    else:
        show_status(found)
    return found
