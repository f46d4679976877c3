"""The verb `chat`: talk to a model in the terminal."""

from __future__ import annotations

from pathlib import Path

LONGEST = 2048  # tokens of an answer


def chat(model: Path, *, bits: int | None = None, system: str | None = None) -> None:
    """Talk to a model, without internet; `/help` lists commands, an empty line or Ctrl-D ends it.

    Args:
        model: A packed model folder, or a GGUF file.
        bits: 16, 8, 5 or 4; what its card names, or the smallest file, if not given.
        system: A system message; the one that its card says it was judged with, if not given.

    Raises:
        FlyweightError: A folder without GGUF files, or a file that the engine refuses.
    """
    from contextlib import ExitStack

    from rich.console import Console

    from flyweight.energy.ledger import Ledger
    from flyweight.errors import FolderError
    from flyweight.runtime.chat_format import ChatFormat
    from flyweight.runtime.open_model import open_model
    from flyweight.runtime.terminal import Terminal

    engine, found = open_model(model, bits=bits, needs=("stream", "reuse", "constrain"))
    console = Console(highlight=False, emoji=False)
    with engine:
        form = ChatFormat.of(engine, found.gguf, found.folder)
        verdict = found.card.verdict if found.card else None
        width = f", {found.bits} bits" if found.bits else ""
        told = f"{found.gguf.stat().st_size / 1e6:,.1f} MB{width}, {engine.context:,} tokens"
        told += f"; {verdict.word} at a bar of {verdict.bar:.0%}" if verdict else ""
        console.print(f"[dim]{told}; /help lists commands[/dim]")
        if system is None and found.card:
            system = found.card.task.system
        alone = found.card is not None and found.card.task.one_turn
        name = (found.folder or found.gguf.with_suffix("")).absolute().name
        with ExitStack() as opened:
            ledger = None
            try:
                ledger = opened.enter_context(Ledger())
            except FolderError as error:
                console.print(f"What answers take is not kept: {error}", style="dim", markup=False)
            Terminal(
                engine, form, console, LONGEST, system, alone=alone, name=name, ledger=ledger
            ).run()
