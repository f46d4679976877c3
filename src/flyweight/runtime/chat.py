"""The verb `chat`: talk to a model folder in the terminal."""

from __future__ import annotations

from pathlib import Path


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

    from flyweight.errors import OptionError
    from flyweight.runtime.open_model import open_model

    engine, found = open_model(model, bits=bits, needs=("stream", "reuse"))
    tokenizer, console = found.tokenizer, Console(highlight=False, emoji=False)
    messages = [{"role": "system", "content": system}] if system else []
    context = engine.context
    with engine:
        if tokenizer is None or not tokenizer.chat_template:
            raise OptionError(f"{model} has no chat template: it cannot chat. Give its folder.")
        while True:
            try:
                said = console.input("[bold]you[/bold]    ").strip()
            except EOFError:
                break
            if not said:
                break
            messages.append({"role": "user", "content": said})
            prompt = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
            room = context - len(prompt)
            if room < 1:
                console.print(f"The conversation is longer than {context} tokens. Start anew.")
                break
            console.print("[bold]model[/bold]  ", end="")
            answer = engine.stream(
                prompt,
                min(room, 512),
                lambda text: console.print(text, end="", markup=False),
            )
            console.print()
            messages.append({"role": "assistant", "content": answer.text})
