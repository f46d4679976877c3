"""Where two texts differ, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

_PIECE = re.compile(r"\w+|\s+|[^\w\s]")
_LONGEST = 2_000  # pieces: beyond, the comparison (quadratic) marks the middle as a whole

Marked = list[tuple[str, bool]]  # stretches of a text, and whether the other text lacks them


def differences(left: str, right: str) -> tuple[Marked, Marked]:
    """Both texts cut into stretches, each with whether the other lacks it; joined, they are whole.

    Compares words, blanks and signs, never parts of a word.
    """
    a, b = _PIECE.findall(left), _PIECE.findall(right)
    if max(len(a), len(b)) > _LONGEST:
        return _ends(a, b)
    marked_left: Marked = []
    marked_right: Marked = []
    for tag, a0, a1, b0, b1 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        for marked, text in ((marked_left, a[a0:a1]), (marked_right, b[b0:b1])):
            if text:
                marked.append(("".join(text), tag != "equal"))
    return marked_left, marked_right


def _ends(a: list[str], b: list[str]) -> tuple[Marked, Marked]:
    """Only the common beginning and end are taken as equal."""
    shortest = min(len(a), len(b))
    head = next((i for i in range(shortest) if a[i] != b[i]), shortest)
    tail = next((i for i in range(shortest - head) if a[-1 - i] != b[-1 - i]), shortest - head)

    def mark(pieces: list[str]) -> Marked:
        end = len(pieces) - tail
        parts = ((pieces[:head], False), (pieces[head:end], True), (pieces[end:], False))
        return [("".join(part), lacks) for part, lacks in parts if part]

    return mark(a), mark(b)
