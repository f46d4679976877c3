"""The verb `usage`: what answers and jobs on this computer took, from the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.energy.ledger import Used
    from flyweight.figure import Figure

DAY = 24 * 3600.0
MOST_DAYS = 36_500
WIDE, BAR, LABEL = 100, 12, 18  # columns of a terminal with bars, of the longest, of a name


def usage(
    *,
    by: str = "day",
    days: int = 30,
    country: str | None = None,
    plot: Path | None = None,
    json: bool = False,
) -> list[dict[str, Any]]:
    """Show what was used on this computer: by day, by model, or by whose key.

    Every answer of `serve` and `chat` and every run of `make` stands in a ledger in your state
    folder (FLYWEIGHT_STATE overrides). Energy is all that the computer took meanwhile, its building
    included; what a service took while nobody asked it is told apart.

    Args:
        by: day, model or key.
        days: How many days back.
        country: Whose grid the carbon is of, such as FRA; FLYWEIGHT_COUNTRY if not given, else
            it is a range.
        plot: Draw it as well, into this .svg or .png file.
        json: Print JSON, with the chip and the computer beside the whole.

    Returns:
        A dict for each label and kind.

    Raises:
        FlyweightError: A ledger or a file that cannot be read or written.
    """
    import time

    from flyweight.energy.budget import Budget
    from flyweight.energy.constants import told_country
    from flyweight.energy.ledger import Ledger, ledger_file
    from flyweight.energy.usage_plot import check_plot, write_plot
    from flyweight.errors import OptionError
    from flyweight.progress import say

    if by not in ("day", "model", "key"):
        raise OptionError(f"--by is {by[:40]!r}: choose day, model or key.")
    if not 1 <= days <= MOST_DAYS:
        raise OptionError(f"--days is {days}: give 1 to {MOST_DAYS:,}.")
    if plot is not None:
        check_plot(Path(plot))
    told, rows = told_country(country), []
    if ledger_file().exists():
        with Ledger(read_only=True) as ledger:
            # whole days, by the clock of this computer
            first = Budget(0.0, "day").began(time.time() - (days - 1) * DAY)
            rows = ledger.sums(by, first)
    found = [vars(each) | {"carbon": _grams(each, told)} for each in rows]
    if json:
        _print(found)
    elif rows:
        _show(rows, by, told)
    else:
        say(f"Nothing was used in {days} days, as far as {ledger_file()} knows.")
    if plot is not None:
        write_plot(rows, by, Path(plot))
        say(f"Drawn: {plot}")
    return found


def _print(found: list[dict[str, Any]]) -> None:
    import json

    print(json.dumps(found, indent=2))


def _grams(used: Used, country: str | None) -> dict[str, float | None]:
    """Grams of CO2e, with the range; without a country that alone is known."""
    from flyweight.energy.sticker import carbon_of

    carbon = carbon_of(_facility(used), country)
    return {"value": carbon.value, "low": carbon.low, "high": carbon.high}


def _show(rows: list[Used], by: str, country: str | None) -> None:
    """A line for each label and kind, with a bar where there is room, and the whole below."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from flyweight.energy.usage_plot import KINDS, named
    from flyweight.figure import total

    console = Console(highlight=False, markup=False)
    wide = console.width >= WIDE
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in (by, ""):
        table.add_column(head, no_wrap=True)
    tokens = ("read", "written") if wide else ()
    for head in ("count", *tokens, "energy", "from", "to", "CO2e"):
        table.add_column(head, justify="right", no_wrap=True)
    if wide:
        table.add_column("")
    most = max(each.facility for each in rows) or 1.0
    for place, each in enumerate(rows):
        again = place and rows[place - 1].label == each.label
        bar = "█" * max(1, round(BAR * each.facility / most)) if each.facility else ""
        table.add_row(
            "" if again else _short(named(each.label)),
            KINDS[each.kind],
            f"{each.count:,}" if each.kind != "idle" else "",
            *(
                f"{number:,.0f}" if each.kind == "answer" else ""
                for number in ((each.tokens_read, each.tokens_written) if wide else ())
            ),
            *(_energy(joules) for joules in (each.facility, each.facility_low, each.facility_high)),
            _carbon(_facility(each), country),
            *([bar] if wide else []),
        )
    console.print(table)
    whole = total(map(_facility, rows))
    sources = sorted({part for each in rows for part in each.sources.split(",")})
    console.print(
        f"in all {_energy(whole.value or 0.0)} ({_energy(whole.low)} to {_energy(whole.high)}, "
        f"assumed), CO2e {_carbon(whole, country)} (assumed). The chip's part above idle is known "
        f"by {'; '.join(sources)}; all around it is assumed."
    )


def _short(label: str) -> str:
    """A label that leaves the numbers their room."""
    return label if len(label) <= LABEL else f"{label[: LABEL - 1]}…"


def _energy(joules: float) -> str:
    """As joules or, from 3,600 of them on, as watt hours."""
    from flyweight.energy.constants import JOULES_A_WH
    from flyweight.energy.sticker_words import JOULES, WATT_HOURS, amount

    small = joules < JOULES_A_WH
    return amount(joules, JOULES) if small else amount(joules / JOULES_A_WH, WATT_HOURS)


def _carbon(joules: Figure, country: str | None) -> str:
    from flyweight.energy.sticker import carbon_of
    from flyweight.energy.sticker_words import GRAMS, said

    found = said(carbon_of(joules, country), GRAMS)
    return found.span or found.text


def _facility(used: Used) -> Figure:
    from flyweight.figure import Figure

    low, high = used.facility_low, used.facility_high
    value = min(max(used.facility, low), high)
    return Figure(value=value, low=low, high=high, kind="assumed")


__all__ = ["usage"]
