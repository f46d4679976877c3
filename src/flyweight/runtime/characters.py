"""The text of tokens that come one by one: whole characters, and nothing of what ends an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flyweight.runtime.engine import Piece


class WholeCharacters:
    """The text of tokens that come one by one, given on in whole characters.

    `text` is what was given on. It ends before any text of `stop`, of which nothing is given on:
    what may become one is held back until `end`.
    """

    def __init__(
        self,
        detokenize: Callable[[Sequence[int]], str],
        on_piece: Callable[[Piece], object],
        stop: Sequence[str] = (),
    ) -> None:
        self.detokenize, self.on_piece, self.stop = detokenize, on_piece, stop
        self.text, self.stopped = "", False
        self._ids: list[int] = []

    def add(self, ids: Sequence[int]) -> None:
        """More tokens, none of which ends the answer."""
        self._ids += ids
        whole = self.detokenize(self._ids)
        if not whole.endswith("\ufffd"):  # a character whose bytes are not all there
            self._give(whole, last=False)

    def end(self) -> None:
        """Nothing follows: what was held back is given on. Half a character never is."""
        self._give(self.detokenize(self._ids).rstrip("\ufffd"), last=True)

    def _give(self, whole: str, last: bool) -> None:
        ends = [place for place in map(whole.find, self.stop) if place >= 0]
        if ends:
            whole, self.stopped = whole[: min(ends)], True
        elif not last:
            whole = whole[: len(whole) - max((begun(whole, each) for each in self.stop), default=0)]
        piece = whole[len(self.text) :]
        if piece:
            self.text = whole
            self.on_piece(Piece(piece))


def begun(text: str, stop: str) -> int:
    """How many characters at the end of a text begin `stop`, which is not whole in it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


__all__ = ["WholeCharacters", "begun"]
