"""What the terminal says at the end of a job."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from sample_card import HOSTILE, rivals, rows, sample_card

from flyweight.card import Card
from flyweight.make.rivals import order_rows, rivals_sentence
from flyweight.make.show import show_result


def said(card: Card, width: int = 80, folder: str = "demo") -> str:
    console = Console(width=width, record=True, highlight=False, quiet=False, file=None)
    with console.capture() as capture:
        show_result(card, Path(folder), console)
    return capture.get()


def real_names(card: Card) -> Card:
    """The candidates named as the job names them, with figures as wide as they get."""
    wide = {
        "bytes": 99_900_000, "peak_memory": 99_900_000, "latency_p50": 0.9984,
        "tokens_per_second": 12_345.0,
    }  # fmt: skip
    models = [
        row.model_copy(
            update=wide
            | {
                "name": f"{row.parameters / 1e6:.1f}M at {row.bits} bits"
                if row.role == "candidate"
                else row.name
            }
        )
        for row in card.rows
    ]
    return card.model_copy(update={"rows": models})


@pytest.mark.parametrize("score", ["exact", "likelihood"])
def test_the_table_fits_80_columns_with_every_cell_whole(score: str) -> None:
    card = real_names(sample_card())
    card.task.score = score
    lines = said(card).splitlines()
    assert max(map(len, lines)) <= 80
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("PASSES"))]
    assert not [line for line in table if "…" in line]
    names = [row.name for row in order_rows(card.rows)]
    shown = [line.strip() for line in table if line.strip().endswith("MB")]
    assert all(line.startswith(name) for name, line in zip(names, shown, strict=True))


def test_rivals_are_told_of_after_the_verdict_and_the_quote_beside_what_came() -> None:
    card = sample_card()
    text = " ".join(said(card).split())
    assert text.index(card.verdict.sentence) < text.index(rivals_sentence(card))
    assert "quoted 3 min 10 s (3 min 24 s for the sizes that were trained), took" in text
    assert "quoted" not in said(sample_card(quote=None))
    lost = sample_card(rows=[*rows(), *rivals(scratch=0.99)])
    assert "A rival wins: " in said(lost)


def test_names_are_no_markup() -> None:
    odd = sample_card()
    odd.task.name = "[red]tickets[/red]"
    text = said(odd, folder="a [bold]b[/bold]")
    assert "[red]tickets[/red]: measured" in text
    assert "model   a [bold]b[/bold]\n" in text
    models = [*rows(), rivals()[2].model_copy(update={"note": f"[blue]{HOSTILE}"})]
    assert f"[blue]{HOSTILE}" in " ".join(said(sample_card(rows=models), 400).split())
