"""The quote on the terminal, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flyweight.card import QuoteCard
from flyweight.make import words
from flyweight.make.energy_words import quote_energy

NAMES = {
    "teacher": "pack the teacher",
    "vocabulary": "leave out unused tokens",
    "quantise": "quantise the teacher",
    "answers": "ask the teacher for answers",
    "measure": "measure on dev",
    "score": "importance of what can be cut",
    "record": "record the teacher",
    "rank": "rank shapes",
    "pictures": "cut pictures into tiles",
    "mend": "mend what is cut",
    "distil": "distil students",
    "pack": "pack and prove students",
    "check": "check bit widths",
    "scratch": "train the rival from scratch",
    "rival": "pack the rival",
    "test": "measure on test",
}


def quote_table(quote: QuoteCard) -> Table:
    """Stages with their likely seconds, and the totals."""
    table = Table(
        title=f"Quote for {escape(quote.machine)}", title_justify="left", box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0), show_footer=True,
    )  # fmt: skip
    table.add_column("stage", footer="in all")
    table.add_column("likely", footer=words.seconds(quote.seconds), justify="right")
    for stage in quote.stages:
        table.add_row(NAMES.get(stage.name, stage.name), words.seconds(stage.quoted))
    return table


def _totals(quote: QuoteCard) -> str:
    """How sure the time is, and what is needed beside it."""
    needs = [
        f"{words.quantity(quote.tokens)} tokens",
        f"{words.size(quote.memory)} of memory",
        f"{words.size(quote.disk)} of disk",
    ]
    said, energy = words.quote_range(quote), quote_energy(quote)
    ends = f" {energy}." if energy else ""
    return f"{said + '; ' if said else ''}{', '.join(needs)}.{ends}"


def show_quote(quote: QuoteCard, warnings: Sequence[str] = (), console: Console | None = None):
    """Print the quote: time by stage, tokens, memory, disk, and where the rates come from."""
    console = console or Console(highlight=False)
    console.print(quote_table(quote))
    console.print(_totals(quote))
    if quote.source == "measured":
        console.print(f"[dim]Rates: {words.quote_rates(quote)}.[/dim]")
    else:
        console.print("[dim]Rates: assumed; the next quote on this machine will be better.[/dim]")
    for warning in warnings:
        console.print(f"[yellow]Note:[/yellow] {escape(warning)}", soft_wrap=True)
