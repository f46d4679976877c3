"""The end of a job, in the terminal: the table, the verdict, and where everything is."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from flyweight.card import Card, Row
from flyweight.folder import REPORT
from flyweight.make import words

COLUMNS = ("size", "score", "kept", "at least", "answer", "tok/s", "memory")


def result_table(card: Card) -> Table:
    """Every measured model, the teacher first, a line each; fits 80 columns."""
    title = f"{card.task.name}: measured in llama.cpp on {card.task.dev:,} dev items"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for heading in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in card.rows:
        table.add_row(*_cells(row, card), style="bold green" if row.chosen else "")
    return table


def _cells(row: Row, card: Card) -> tuple[str, ...]:
    teacher = row.role == "teacher"
    return (
        row.name,
        words.size(row.bytes),
        words.score(row.dev.mean, card.task.score),
        "" if teacher else words.percent(row.dev_ratio),
        "" if teacher else words.lower_limit(row.dev_low, card.verdict.bar),
        words.seconds(row.latency_p50),
        words.rate(row.tokens_per_second),
        words.size(row.peak_memory),
    )


def show_result(card: Card, out: Path, console: Console | None = None) -> None:
    """Print the table, the verdict sentence and the paths."""
    console = console or Console(highlight=False)
    smaller = card.teacher.bytes / card.student.bytes
    console.print()
    console.print(result_table(card))
    console.print(f"[bold]{card.verdict.word.upper()}[/bold]: {card.verdict.sentence}")
    if advice := words.advice(card.verdict):
        console.print(advice)
    console.print(f"It is {words.times(smaller)} times smaller than the teacher at 16 bits.\n")
    console.print(f"model   {out}", soft_wrap=True)
    console.print(f"report  {out / REPORT}", soft_wrap=True)
