"""The verb `chat`: talk to a model folder in the terminal."""

from __future__ import annotations

from pathlib import Path

LONGEST = 512  # tokens of an answer


def chat(model: Path, *, bits: int | None = None, system: str | None = None) -> None:
    """Talk to a packed model, without internet; an empty line or Ctrl-D ends it.

    Args:
        model: A model folder with GGUF files.
        bits: 16, 8, 5 or 4; what its card names, or the smallest file, if not given.
        system: A system message.

    Raises:
        FlyweightError: A folder without GGUF files, or a file that the engine refuses.
    """
    from rich.console import Console

    from flyweight.runtime.chat_format import ChatFormat
    from flyweight.runtime.open_model import open_model

    engine, found = open_model(model, bits=bits, needs=("stream", "reuse"))
    console = Console(highlight=False, emoji=False)
    messages = [{"role": "system", "content": system}] if system else []
    with engine:
        form = ChatFormat.of(engine, found.gguf, found.folder)
        while True:
            try:
                said = console.input("[bold]you[/bold]    ").strip()
            except EOFError:
                break
            if not said:
                break
            messages.append({"role": "user", "content": said})
            prompt = form.prompt(messages)
            room = engine.context - len(prompt)
            if room < 1:
                console.print(
                    f"The conversation is longer than {engine.context} tokens. Start anew."
                )
                break
            console.print("[bold]model[/bold]  ", end="")
            answer = engine.stream(
                prompt,
                min(room, LONGEST),
                lambda piece: console.print(piece.text, end="", markup=False),
            )
            console.print()
            messages.append({"role": "assistant", "content": answer.text})
