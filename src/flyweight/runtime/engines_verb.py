"""The verb `engines`: which engine runs a model fastest on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.runtime.choice import Found, Row, Work


def engines(model: Path, *, bits: int | None = None, again: bool = False) -> dict[str, Any]:
    """Measure the engines that are installed on a packed model, and remember the fastest ones.

    One stream, the reading of a long prompt, batches of 8 and 16, and memory, each engine in child
    processes of its own, in turn. What was found is kept for this machine and these versions.

    Args:
        model: A model folder with GGUF files.
        bits: 16, 8, 5 or 4; the card's choice, or the smallest file that is there, if not given.
        again: Measure again what is known already.

    Returns:
        What was measured: `made`, `rows`, and `winners` by kind of work.

    Raises:
        FlyweightError: A folder without GGUF files.
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from flyweight.checkpoint import open_checkpoint
    from flyweight.folder import sha256_of
    from flyweight.progress import bar
    from flyweight.runtime.choice import ENGINES, Found, best, installed, recall, remember
    from flyweight.runtime.engine_speed import ROUNDS, Sizes, race

    checkpoint = open_checkpoint(model)
    bits, gguf = _file(checkpoint.path, str(model), bits)
    identity = sha256_of(gguf)
    found = None if again else recall(identity)
    if found is None:
        here = installed()
        sources = {
            name: (gguf, bits) if kind.opens == "gguf" else (checkpoint.path, 16)
            for name, kind in ENGINES.items()
            if name in here
        }
        with bar("measuring", len(sources) * ROUNDS) as running:
            rows = race(
                sources, Sizes.fitting(checkpoint.context), rounds=ROUNDS, on_done=running.advance
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        found = Found(now, rows, best(rows))
        remember(identity, found)
    _show(gguf, found)
    return asdict(found)


def _file(folder: Path, name: str, bits: int | None) -> tuple[int, Path]:
    """The GGUF file of so many bits, or of the card's, or the smallest."""
    from flyweight.errors import FolderError, OptionError
    from flyweight.folder import CARD, GGUF_NAMES, read_card

    there = {width: folder / file for width, file in GGUF_NAMES.items()}
    there = {width: path for width, path in there.items() if path.exists()}
    if not there:
        raise FolderError(f"{name} has no GGUF file. Make them: flyweight pack {name}")
    if bits is None:
        bits = read_card(folder).bits if (folder / CARD).exists() else None
        bits = bits if bits in there else min(there)
    if bits not in there:
        raise OptionError(f"--bits is {bits}: {name} has {', '.join(map(str, there))}.")
    return bits, there[bits]


def _show(gguf: Path, found: Found) -> None:
    """A row for each engine, then who won what by how much."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from flyweight.runtime.choice import ENGINES, WORKS, installed

    console = Console(highlight=False)
    console.print(f"{gguf}, measured {found.made}", markup=False)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("tokens/s")
    streams = sorted({each for row in found.rows for each in row.batches})
    batches = [f"x {each}" for each in streams]
    for head in ("bits", "stream", *batches, "prompt", "memory", "GB/s", "limit", "reached"):
        table.add_column(head, justify="right")
    for row in found.rows:
        if not row.failed:
            table.add_row(*_cells(row, streams))
    console.print(table)
    for row in found.rows:
        if row.failed:
            console.print(f"{row.engine} did not run: {row.failed}", markup=False, soft_wrap=True)
    for work in WORKS:
        if work in found.winners:
            console.print(f"{work}: {_told(found.rows, work, found.winners[work])}", markup=False)
    for name, kind in ENGINES.items():
        if name not in installed():
            need = f"flyweight[{kind.extra}]" if kind.extra else kind.package
            console.print(f"{name} is not installed: pip install '{need}'", markup=False)
    console.print(
        "medians of the rounds; stream: one answer; x 8: eight at a time, together; prompt: a\n"
        "long one; memory: of the process; GB/s: weights that one stream reads; limit: what this\n"
        "machine reads of as many bytes, again and again, in the same minutes",
        soft_wrap=True,
    )


def _cells(row: Row, streams: list[int]) -> list[str]:
    from statistics import median

    def speed(values: list[float]) -> str:
        return f"{median(values):,.0f}" if values else "-"

    read = row.reads * median(row.stream) if row.stream else 0.0
    limit = median(row.limit) if row.limit else 0.0
    shares = ["-"] * 3
    if read and limit:
        shares = [f"{read / 1e9:.1f}", f"{limit / 1e9:.0f}", f"{read / limit:.0%}"]
    batches = [speed(row.batches.get(each, [])) for each in streams]
    cells = [row.engine, str(row.bits), speed(row.stream), *batches, speed(row.prompt)]
    return [*cells, f"{row.memory / 1e6:,.0f} MB", *shares]


def _told(rows: list[Row], work: Work, name: str) -> str:
    """The winner, and how far it is ahead of the next one, round by round."""
    from statistics import median

    speeds = {row.engine: row.speeds(work) for row in rows if row.speeds(work)}
    mine = speeds.pop(name)
    if not speeds:
        return name
    rival = max(speeds, key=lambda each: median(speeds[each]))
    ratios = sorted(a / b for a, b in zip(mine, speeds[rival], strict=False))
    between = f"{ratios[0]:.2f} to {ratios[-1]:.2f}, n = {len(ratios)}"
    clear = "" if ratios[0] > 1 else ", no measurable gain"
    return f"{name}, {median(ratios):.2f} times {rival} ({between}){clear}"


__all__ = ["engines"]
