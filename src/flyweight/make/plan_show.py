"""A plan on the terminal: one column a model, each figure with its range, then the ratios."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flyweight.make import words

Units = Sequence[tuple[str, float]]  # the smallest first

ENERGY: Units = (("mJ", 1e-3), ("J", 1), ("kJ", 1e3), ("MJ", 1e6), ("GJ", 1e9))
POWER: Units = (("Wh", 1e-3), ("kWh", 1), ("MWh", 1e3), ("GWh", 1e6), ("TWh", 1e9))
MASS: Units = (("g", 1e-3), ("kg", 1), ("t", 1e3), ("kt", 1e6), ("Mt", 1e9))
VOLUME: Units = (("mL", 1e-3), ("L", 1), ("m³", 1e3), ("ML", 1e6), ("GL", 1e9))
TIME: Units = (("ms", 1e-3), ("s", 1), ("min", 60), ("h", 3600), ("days", 86400))
PLAIN: Units = (("", 1), ("k", 1e3), ("M", 1e6), ("G", 1e9))


def ranged(figure: dict[str, Any], units: Units = PLAIN) -> str:
    """A figure and its range in one unit: "46 (28–84) MWh", "1.2–30 t" without a value."""
    low, value, high = (figure[name] for name in ("low", "value", "high"))
    middle = high if value is None else value
    fitting = [each for each in units if middle >= 0.9995 * each[1]]
    unit, power = (fitting or units)[-1 if fitting else 0]
    if value is None:
        told = f"{short(low / power)}–{short(high / power)}"
    elif short(low / power) == short(high / power):
        told = short(value / power)
    else:
        told = f"{short(value / power)} ({short(low / power)}–{short(high / power)})"
    return f"{told} {unit}".strip()


def short(value: float) -> str:
    """Two digits, as many as such figures are worth; three below a thousand."""
    if value >= 999.5:
        return f"{float(f'{value:.2g}'):,.0f}"
    if value >= 9.95 or abs(value - round(value)) < 0.005 * value:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.995 else f"{value:.2g}"


def devices(row: dict[str, Any]) -> str:
    """How many in all, and how many where they reach more or less than they usually do."""
    low, high = row["devices_range"]
    return f"{row['devices']:,}" + (f" ({low:,}–{high:,})" if low < high else "")


FIRST = "devices"
NEEDED = "  memory it needs"
BUILDING = "  with building"
# what a line says of a model that fits; a line without such is a heading
LINES: dict[str, Callable[[dict[str, Any]], str] | None] = {
    FIRST: devices,
    "  of each copy": lambda it: f"{it['devices_a_copy']:,}, {words.size(it['memory'])}",
    NEEDED: lambda it: words.size(it["memory_needed"]),
    "  busy": lambda it: ranged(percents(it["busy"])) + " %",
    "  answers at once": lambda it: ranged(it["batch"]),
    "    most": lambda it: f"{it['batch_most']:,}",
    "  answers/s, most": lambda it: ranged(it["answers_per_second_most"]),
    "[bold]an answer[/]": None,
    "  takes": lambda it: ranged(it["seconds"], TIME),
    "  tokens a second": lambda it: ranged(it["tokens_per_second"]),
    "  energy, chip": lambda it: ranged(it["joules"]["chip"], ENERGY),
    "  with computer": lambda it: ranged(it["joules"]["computer"], ENERGY),
    BUILDING: lambda it: ranged(it["joules"]["facility"], ENERGY),
    "[bold]a year[/]": None,
    "  energy": lambda it: ranged(it["year"]["kwh"], POWER),
    "  CO2e of power": lambda it: ranged(it["year"]["carbon"], MASS),
    "  CO2e of making": lambda it: ranged(it["year"]["embodied_carbon"], MASS),
    "  water": lambda it: ranged(it["year"]["water"], VOLUME),
}


def percents(figure: dict[str, Any]) -> dict[str, Any]:
    """The figure of a share in percent."""
    return {name: 100 * figure[name] for name in ("low", "value", "high")}


def show_plan(found: dict[str, Any], console: Console | None = None) -> None:
    """Print the models side by side, the smallest first, and the ratios of their energy."""
    console = console or Console(highlight=False, emoji=False)
    a_second, a_day = short(found["load"]), words.quantity(found["load"] * 86400)
    console.print(
        f"{a_second} request{'' if a_second == '1' else 's'} a second ({a_day} a day), each "
        f"{found['read']:,} tokens read and {found['write']:,} written\n"
        f"all figures are assumed, with constants of {found['constants']}: typical (low–high)",
        soft_wrap=True,
    )
    rows = sorted([found, *found["beside"]], key=lambda row: row["parameters"])
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(f"{escape(found['device'])}, {found['bits']} bits")
    for row in rows:
        name = escape(row["model"])
        table.add_column(
            f"[bold]{name}[/]" if row is found else name, justify="right", overflow="fold"
        )
    housed = any(row["fits"] and _is_housed(row["joules"]) for row in rows)
    for title, say in LINES.items():
        if title == BUILDING and not housed:
            continue
        table.add_row(title, *(_cell(row, say, title) for row in rows))
    console.print(table)
    for row in rows:
        if not row["fits"]:
            console.print(f"{row['model']} {row['why']}.", markup=False, soft_wrap=True)
    for each in found["ratios"]:
        _show_ratio(each, console)
    notes = Table.grid(padding=(0, 1, 0, 0))
    for each in found["assumptions"]:
        notes.add_row("-", escape(each))
    console.print(notes)


def _is_housed(joules: dict[str, Any]) -> bool:
    """Whether a data centre around the computers takes something too."""
    return joules["facility"]["high"] > joules["computer"]["high"]


def _cell(row: dict[str, Any], say: Callable[[dict[str, Any]], str] | None, title: str) -> str:
    if row["fits"]:
        return say(row) if say else ""
    if title == FIRST:
        return "does not fit"
    return words.size(row["memory_needed"]) if title == NEEDED else ""


def _show_ratio(found: dict[str, Any], console: Console) -> None:
    """The range in a sentence, then a line for each reason; none where all say the same."""
    big, small = found["bigger"], found["smaller"]
    energy = found["energy"]
    said = f"[bold]{escape(big)} takes {span(energy)} times the energy of {escape(small)}[/]"
    if short(energy["low"]) == short(energy["high"]):
        console.print(f"{said}, whichever way they are run\n")
        return
    console.print(f"{said}, {short(energy['value'])} at this load:")
    more = ", and more than one box" if found["spread"] else ""
    a_device = " and ".join(short(each["batch"] / each["devices"]) for each in found["batching"])
    alone = " and ".join(short(each["alone"]["value"]) for each in found["batching"])
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", min_width=12, no_wrap=True)
    grid.add_column()
    grid.add_row(short(found["idle"]), "devices alone: both idle, as at a low load")
    grid.add_row(short(found["weights"]), "bytes of weights alone")
    grid.add_row(span(found["alone"]), f"one answer at a time: bytes{more}")
    grid.add_row(span(found["full"]), f"full batches ({a_device} a device): work{more}")
    grid.add_row(alone, "of the same model: one answer at a time against full batches")
    console.print(grid)
    console.print()


def span(figure: dict[str, Any]) -> str:
    """A range without its middle: "28 to 100"."""
    low, high = short(figure["low"]), short(figure["high"])
    return low if low == high else f"{low} to {high}"


__all__ = ["LINES", "devices", "percents", "ranged", "short", "show_plan", "span"]
