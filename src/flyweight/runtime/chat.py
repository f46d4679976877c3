"""The verb `chat`: talk to a model folder in the terminal."""

from __future__ import annotations

from pathlib import Path


def chat(model: Path, *, bits: int | None = None, system: str | None = None) -> None:
    """Talk to a packed model, without internet; an empty line or Ctrl-D ends it.

    Args:
        model: A model folder with GGUF files.
        bits: 16, 8 or 4; the smallest file that is there if not given.
        system: A system message.

    Raises:
        FlyweightError: A folder without GGUF files, or a file that the engine refuses.
    """
    from rich.console import Console

    from flyweight.checkpoint import open_checkpoint
    from flyweight.errors import FolderError, OptionError
    from flyweight.folder import CARD, GGUF_NAMES, read_card
    from flyweight.runtime.llama import LlamaEngine

    source = open_checkpoint(model)
    if bits is None and (source.path / CARD).exists():
        bits = read_card(source.path).bits
    there = {width: source.path / name for width, name in GGUF_NAMES.items()}
    there = {width: path for width, path in there.items() if path.exists()}
    if not there:
        raise FolderError(f"{model} has no GGUF file. Make them: flyweight pack {model}")
    bits = min(there) if bits is None else bits
    if bits not in there:
        raise OptionError(f"--bits is {bits}: {model} has {', '.join(map(str, there))}.")

    tokenizer, console = source.tokenizer(), Console(highlight=False)
    if not tokenizer.chat_template:
        raise OptionError(f"{model} has no chat template: it cannot chat. Score it with `eval`.")
    messages = [{"role": "system", "content": system}] if system else []
    context = min(source.context, 4096)
    with LlamaEngine(there[bits], context=context) as engine:
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
