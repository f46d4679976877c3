"""The verb `chat`: talk to a model in the terminal, about a picture too."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console

    from flyweight.card import Card
    from flyweight.energy.ledger import Ledger
    from flyweight.runtime.terminal import Terminal

LONGEST = 2048  # tokens of an answer
ONE_WORD = re.compile(r"[!-~]*[\w/\\]", re.ASCII)  # more likely a mistyped folder than a question


def chat(
    model: str | None = None,
    prompt: str | None = None,
    *,
    image: Path | None = None,
    bits: int | None = None,
    system: str | None = None,
) -> None:
    """Talk to a model, without internet; `/help` lists commands, an empty line or Ctrl-D ends it.

    With a prompt it is answered and that is all.

    Args:
        model: A packed model folder, a GGUF file, or a folder with eyes; with --image it may be
            left out: the small one that comes along answers.
        prompt: What to answer, once.
        image: A picture that the conversation is about, for models with eyes.
        bits: 16, 8, 5 or 4 of a packed folder, 16 or 8 of one with eyes; what its card names if
            not given, else the smallest file, of one with eyes the most.
        system: A system message; the one that its card says it was judged with, if not given.

    Raises:
        FlyweightError: A folder without files to run, one that the engine refuses, or no picture.
    """
    from rich.console import Console

    from flyweight.energy.ledger import Ledger
    from flyweight.errors import FolderError, OptionError
    from flyweight.tasks.items import short
    from flyweight.vision.images import open_image
    from flyweight.vision.vision_folder import has_eyes

    if model is not None and not _is_path(model):
        if image is None or prompt is not None or ONE_WORD.fullmatch(model):
            raise FolderError(
                f"{short(model)}: there is no such file or folder. Give a model folder. (What is "
                "asked without one, with --image alone, has several words.)"
            )
        model, prompt = None, model
    if model is None and image is None:
        raise OptionError("no model: give a model folder, or --image to ask of a picture.")
    picture = None if image is None else open_image(image)  # before a model is loaded
    console = Console(highlight=False, emoji=False)
    with ExitStack() as opened:
        ledger = None
        try:
            ledger = opened.enter_context(Ledger())
        except FolderError as error:
            console.print(f"What answers take is not kept: {error}", style="dim", markup=False)
        place = Path(model) if model is not None else _shipped()
        talk = _Talk(place, bits, system, console, ledger, opened)
        if has_eyes(place):
            terminal = talk.seeing(picture)
        elif picture is not None:
            raise OptionError(
                f"--image: {place} has no eyes. Give it some: flyweight add-vision, train-vision."
            )
        else:
            terminal = talk.reading()
        if prompt is None:
            terminal.run()
        else:
            terminal.take_once(prompt)


def _is_path(text: str) -> bool:
    """Whether there is something of that name."""
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long for a name, or with signs that none can have
        return False


def _shipped() -> Path:
    from flyweight.vision.shipped import shipped

    return shipped()


@dataclass(frozen=True)
class _Talk:
    """What is to be talked to, and where; `opened` closes it at the end."""

    place: Path
    bits: int | None
    system: str | None
    console: Console
    ledger: Ledger | None
    opened: ExitStack

    def seeing(self, picture: Image | None) -> Terminal:
        """A terminal for a model with eyes, which are shown a picture if there is one."""
        from flyweight.folder import CARD, read_card
        from flyweight.vision.engine import VisionEngine
        from flyweight.vision.terminal import VisionTerminal
        from flyweight.vision.vision_folder import bits_of

        engine = VisionEngine(self.place, bits=bits_of(self.place, self.bits))
        self.opened.enter_context(engine)
        name = self.place.absolute().name
        card = read_card(self.place) if (self.place / CARD).exists() else None
        terminal = VisionTerminal(
            engine, engine.form, self.console, LONGEST, self._system(card),
            alone=card is not None and card.task.one_turn, name=name, ledger=self.ledger,
        )  # fmt: skip
        told = "/help lists commands" if picture else "/image FILE shows it a picture"
        self.console.print(f"[dim]{name}, which sees; {engine.context:,} tokens; {told}[/dim]")
        if picture is not None:
            terminal.see(picture)
        return terminal

    def _system(self, card: Card | None) -> str | None:
        """What was asked for, else what it was judged with."""
        return card.task.system if card and self.system is None else self.system

    def reading(self) -> Terminal:
        """A terminal for a packed model."""
        from flyweight.runtime.chat_format import ChatFormat
        from flyweight.runtime.open_model import open_model
        from flyweight.runtime.terminal import Terminal

        needs = ("stream", "reuse", "constrain")
        engine, found = open_model(self.place, bits=self.bits, needs=needs)
        self.opened.enter_context(engine)
        form, card = ChatFormat.of(engine, found.gguf, found.folder), found.card
        width = f", {found.bits} bits" if found.bits else ""
        told = f"{found.gguf.stat().st_size / 1e6:,.1f} MB{width}, {engine.context:,} tokens"
        told += f"; {card.verdict.word} at a bar of {card.verdict.bar:.0%}" if card else ""
        self.console.print(f"[dim]{told}; /help lists commands[/dim]")
        name = (found.folder or found.gguf.with_suffix("")).absolute().name
        return Terminal(
            engine, form, self.console, LONGEST, self._system(card),
            alone=card is not None and card.task.one_turn, name=name, ledger=self.ledger,
        )  # fmt: skip


__all__ = ["chat"]
