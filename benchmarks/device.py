"""Is the smallest by latency or memory another one than by bytes, and do the forecasts hold?

The demo's teacher and task. This machine's blocks are measured, then `make` is asked by bytes, by
latency and by memory, and within a budget of each that the choice by bytes does not keep; all
share what is known. Every file that was measured stands beside its forecast: as it went in the
jobs, and once more, the students' files measured right before and right after the blocks, the
better of both, beside how far the two lie apart. What the forecasts save is told by the time that
one shape takes to be packed and measured instead.

    python benchmarks/device.py --out out/device            # a quarter of an hour on one core
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import flyweight
from flyweight.card import Card, Row
from flyweight.checkpoint import open_checkpoint
from flyweight.demo.orders import write_task
from flyweight.errors import OptionError
from flyweight.folder import read_card
from flyweight.make.blocks import load_of
from flyweight.make.data import prepare_split
from flyweight.make.device import WRITES, measure_device, this_device
from flyweight.make.form import Cost, form_of
from flyweight.tasks.read import read_task
from flyweight.tasks.score import scorer

TEACHER = Path(flyweight.__file__ or "").parent / "demo" / "teacher"
WITHIN = 0.15  # which forecasts are to keep
ASKED = 100  # dev items, of the calm check
TIGHTER = 0.8  # a budget beside what the choice by bytes takes


def show_choices(choices: dict[str, Card]) -> None:
    """What each wish ended in."""
    table = Table(title="The choice by each wish")
    for head in ("wish", "chosen", "shape", "bytes", "p50", "p95", "memory", "kept", "seconds"):
        table.add_column(head, justify="left" if head in ("wish", "shape") else "right")
    for wish, card in choices.items():
        row, shape = card.student, card.shape
        sizes = f"{shape['layers']} x {shape['hidden']}, MLP {shape['mlp']}, {shape['heads']} heads"
        table.add_row(
            wish,
            f"{row.name}{'' if row.passes else ' (fails)'}",
            sizes,
            f"{row.bytes / 1e3:,.0f} kB",
            f"{row.latency_p50 * 1e3:.2f} ms",
            f"{row.latency_p95 * 1e3:.2f} ms",
            f"{row.peak_memory / 1e6:.1f} MB",
            f"{row.dev_ratio:.1%} ({row.dev_low:.1%})",
            f"{sum(card.recipe.seconds.values()):,.0f}",
        )
    Console(highlight=False, width=140).print(table)


def show_forecasts(rows: list[Row]) -> None:
    """How far off what was foretold of the candidates is."""
    off: dict[str, list[float]] = {"p95 latency": [], "p50 latency": [], "memory": [], "bytes": []}
    for row in rows:
        told = row.forecast
        if told is None:
            continue
        for name, foretold, measured in (
            ("p95 latency", told.latency_p95, row.latency_p95),
            ("p50 latency", told.latency_p50, row.latency_p50),
            ("memory", told.memory, row.peak_memory),
            ("bytes", told.bytes, row.bytes),
        ):
            off[name].append(foretold / measured - 1)
    show_errors(f"Forecast beside measurement, {len(off['bytes'])} files", off)


def show_errors(title: str, off: dict[str, list[float]]) -> None:
    """Relative errors by what they are of."""
    table = Table(title=title)
    for head in ("", "median error", "furthest", f"within {WITHIN:.0%}", "bias"):
        table.add_column(head, justify="right" if head else "left")
    for name, errors in off.items():
        apart = np.abs(errors)
        table.add_row(
            name,
            f"{np.median(apart):.1%}",
            f"{apart.max():.1%}",
            f"{(apart <= WITHIN).sum()} of {len(apart)}",
            f"{np.median(errors):+.1%}",
        )
    Console(highlight=False, width=140).print(table)


def check_calmly(work: Path, task_file: Path) -> None:
    """Every packed student measured before and after the blocks, beside what these foretell."""
    task, how = read_task(task_file), scorer("exact")
    packed = [open_checkpoint(folder) for folder in sorted(work.glob("pack-*"))]
    forms = [form_of(source) for source in packed]
    taken: dict[tuple[int, int], list[Cost]] = {}

    def measure_all() -> None:
        for place, form in enumerate(forms):
            part = prepare_split(task.dev[:ASKED], task.name, form, how)
            limit = form.answer_limit([part], how)
            for bits, name in form.files.items():
                said = form.answers(form.source.path / name, part.prompts, limit, lambda: None)
                taken.setdefault((place, bits), []).append(said.cost)

    measure_all()
    device = measure_device(this_device(), WRITES)
    measure_all()
    off: dict[str, list[float]] = {"p50 latency": [], "p95 latency": [], "twice measured, p50": []}
    for (place, bits), costs in taken.items():
        source = forms[place].source
        lengths = prepare_split(task.dev[:ASKED], task.name, forms[place], how).lengths
        load = load_of(source.family, source.shape, source.config)
        size = (source.path / forms[place].files[bits]).stat().st_size
        told = device.forecast(load, bits, size, lengths[:, 0], lengths[:, 1])
        first, second = costs
        off["p50 latency"].append(told.latency_p50 / min(c.latency_p50 for c in costs) - 1)
        off["p95 latency"].append(told.latency_p95 / min(c.latency_p95 for c in costs) - 1)
        off["twice measured, p50"].append(first.latency_p50 / second.latency_p50 - 1)
    show_errors(f"Once more, {len(taken)} files", off)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where all that is made is left")
    parser.add_argument("--bar", type=float, default=0.93)
    parser.add_argument("--effort", default="quick")
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    task = told.out / "demo.jsonl"
    write_task(task)
    started = time.perf_counter()
    found = measure_device(this_device(), WRITES)
    once = time.perf_counter() - started
    errors = {bits: f"{parts[0].error:.0%}" for bits, parts in found.blocks[WRITES].items()}
    job: dict[str, Any] = {
        "task": task, "out": told.out / "student", "bar": told.bar, "effort": told.effort,
    }  # fmt: skip

    def ask(**wishes: Any) -> Card:
        return read_card(flyweight.make(str(TEACHER), **job, **wishes))

    choices = {"bytes": ask(), "latency": ask(by="latency"), "memory": ask(by="memory")}
    plain = choices["bytes"].student
    latency, memory = TIGHTER * plain.latency_p95, TIGHTER * plain.peak_memory
    choices[f"p95 <= {latency * 1e3:.2f} ms"] = ask(max_latency=f"{latency}s")
    try:
        choices[f"memory <= {memory / 1e6:.1f} MB"] = ask(max_memory=f"{memory:.0f}B")
    except OptionError as error:
        Console(highlight=False).print(f"memory <= {memory / 1e6:.1f} MB: {error}")
    show_choices(choices)
    rows = {(row.name, str(row.shape)): row for card in choices.values() for row in card.rows}
    show_forecasts([row for row in rows.values() if row.role == "candidate"])
    check_calmly(told.out / "student.work", task)
    stages = choices["latency"].recipe.seconds
    measured = len([row for row in choices["latency"].rows if row.role == "candidate"])
    print(json.dumps({
        "blocks measured once, s": round(once, 1),
        "left-out error by bits": errors,
        "packing a shape, s": stages.get("pack", 0.0) / max(1, measured / 3),
        "measuring a file, s": stages.get("measure", 0.0) / max(1, measured + 3),
        "shapes that were foretold": len(choices["latency"].ranking),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
