"""A conversation about a picture in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

from flyweight.runtime.terminal import HELP, Terminal, path_of
from flyweight.vision.engine import VisionEngine
from flyweight.vision.images import open_image
from flyweight.vision.prompts import with_picture


class VisionTerminal(Terminal):
    """A model with eyes that is talked to; each conversation is about one picture, or none."""

    engine: VisionEngine
    help = HELP.replace(
        "/help  ", "/image FILE      a new conversation, about this picture\n/help  "
    )

    def see(self, picture: Image.Image) -> None:
        """What is said next is about this picture."""
        super()._new("")
        self.engine.see(picture)
        self._has = True

    _has = False  # the conversation is about a picture

    def _commands(self) -> dict[str, Callable[[str], None]]:
        return super()._commands() | {"/image": lambda file: self.see(open_image(path_of(file)))}

    def _new(self, _: str) -> None:
        super()._new(_)
        self.engine.see(None)
        self._has = False

    def _told(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        asked = any(each["role"] == "user" for each in messages)
        return with_picture(messages) if self._has and asked else messages


__all__ = ["VisionTerminal"]
