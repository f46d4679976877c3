"""The end of a job, in the terminal: the table, the verdict, the rivals, and the paths."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flyweight.card import Card, Row
from flyweight.folder import REPORT
from flyweight.make import words
from flyweight.make.energy_words import quote_energy
from flyweight.make.rivals import order_rows, rivals_sentence

COLUMNS = ("size", "score", "kept", "at least", "answer", "{}/s", "memory")
NAME = 20  # columns of a terminal that a model's name may take, so that a line has at most 80


def result_table(card: Card) -> Table:
    """Every measured model, the teacher first, a line each; fits 80 columns."""
    where = words.engines(card.rows)
    title = f"{escape(card.task.name)}: measured in {where} on {card.task.dev:,} dev items"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("model", no_wrap=True, max_width=NAME)
    for heading in COLUMNS:
        unit = "texts" if card.classifies else "tok"
        table.add_column(heading.format(unit), justify="right", no_wrap=True)
    for row in order_rows(card.rows):
        table.add_row(*_cells(row, card), style=_style(row))
    return table


def _style(row: Row) -> str:
    if row.chosen:
        return "bold green"
    return "" if row.role == "candidate" else "italic"


def _cells(row: Row, card: Card) -> tuple[str, ...]:
    teacher = row.role == "teacher"
    likelihood = card.task.score == words.LIKELIHOOD
    return (
        escape(row.name),
        words.size(row.bytes),
        f"{row.dev.mean:.3f}" if likelihood else words.score(row.dev.mean, card.task.score),
        "" if teacher else words.percent(row.dev_ratio),
        "" if teacher else words.lower_limit(row.dev_low, card.verdict.bar),
        words.seconds(row.latency_p50),
        words.speed(row),
        words.size(row.peak_memory),
    )


def show_result(card: Card, out: Path, console: Console | None = None) -> None:
    """Print the table, the verdict sentence, the rivals, quoted and actual time, and the paths."""
    console = console or Console(highlight=False)
    smaller = card.teacher.bytes / card.student.bytes
    console.print()
    console.print(result_table(card))
    console.print(f"[bold]{card.verdict.word.upper()}[/bold]: {escape(card.verdict.sentence)}")
    if told := words.tasks(card):
        console.print(escape(told))
    if rivals := rivals_sentence(card):
        console.print(escape(rivals))
    if advice := words.advice(card.verdict):
        console.print(advice)
    console.print(f"It is {words.times(smaller)} times smaller than the teacher at 16 bits.")
    if told := words.forecasts(card):
        console.print(told)
    if card.quote:
        console.print(words.quote_line(card.quote))
        if energy := quote_energy(card.quote):
            console.print(f"{energy}.")
    console.print(f"\nmodel   {escape(str(out))}", soft_wrap=True)
    console.print(f"report  {escape(str(out / REPORT))}", soft_wrap=True)
