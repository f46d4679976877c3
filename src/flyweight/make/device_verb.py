"""The verb `device`: what networks take on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.make.device import Device


def device(*, out: Path | None = None, again: bool = False) -> dict[str, Any]:
    """Measure what the building blocks of networks take on this machine, and show it.

    Small random networks are run in the engines that are installed, once; what is found is kept and
    lets `make` foretell latency, speed and memory of any shape. A profile that was copied from
    another machine is given to `make` as --device FILE.

    Args:
        out: Write the profile to this file as well.
        again: Measure again what is known already.

    Returns:
        The profile.

    Raises:
        FlyweightError: A file that cannot be written.
    """
    from dataclasses import asdict, replace

    from flyweight.folder import disk_errors
    from flyweight.make.device import CLASSIFIES, WRITES, measure_device, this_device, write_device
    from flyweight.progress import say

    found = this_device()
    if again:
        found = replace(found, made={}, blocks={})
    for kind in (WRITES, CLASSIFIES):
        if kind == CLASSIFIES and "onnxruntime" not in found.engines:
            say("Networks that classify are not measured: pip install 'flyweight[onnx]'.")
        elif not found.knows(kind):
            found = measure_device(found, kind)
    if out is not None:
        with disk_errors(Path(out)):
            write_device(found, Path(out))
    _show(found)
    return asdict(found)


def _show(found: Device) -> None:
    """A line for each width: what its parts take, and how far off forecasts were."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from flyweight.make import words
    from flyweight.make.device import VERBS

    engines = ", ".join(f"{name} {version}" for name, version in found.engines.items())
    console = Console(highlight=False)
    console.print(f"{found.processor}, {found.cores} cores; {engines}", markup=False)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("networks that")
    heads = ("bits", "an answer", "a layer", "M weights read", "M weights written", "memory", "off")
    for head in heads:
        table.add_column(head, justify="right")
    for kind, widths in found.blocks.items():
        for bits, parts in widths.items():
            for place, each in enumerate(parts):
                answer, _, layer, read, written, *_ = each.seconds
                table.add_row(
                    f"{VERBS[kind]}{', large' if place else ''}",
                    str(bits),
                    *(words.seconds(value) for value in (answer, layer, read * 1e6, written * 1e6)),
                    words.size(each.memory[0]),
                    words.percent(each.error, 0),
                )
    console.print(table)
    console.print("off: of a network's latency, foretold from the others, in the median")


__all__ = ["device"]
