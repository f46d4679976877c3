"""Text that stays in its place: cleaned of what breaks a drawing, measured, shrunk, shortened.

Widths are those of Arial, Helvetica, Liberation Sans and Arimo, which are one another's. A browser
without any of them takes a wider font: `textLength` then keeps a line in its room.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from markupsafe import Markup, escape

INK = "#111111"  # what the drawing is in where nothing else is said
_ELLIPSIS = "…"
_UNKNOWN = 1.35  # em of what no table below has: the width of an emoji, the widest that is common
_LETTER = 1.1  # of a Latin, Greek or Cyrillic letter: the widest of them
_NO_ROOM = ("Mn", "Me", "Cf")  # accents, and signs that only join others
_TIGHT = 0.55  # share of its room from which a line could leave it in a wider font
# thousandths of an em
_REGULAR = {
    191: "'", 222: "ijl", 260: "|", 278: " !,./:;I[\\]ft", 333: "()-`r·₂", 334: "{}", 355: '"',
    389: "*", 400: "°", 469: "^", 500: "Jcksvxyz", 556: "#$0123456789?L_abdeghnopqu–",
    584: "+<=>~×", 611: "FTZ", 667: "&ABEKPSVXY", 722: "CDHNRUw", 778: "GOQ", 833: "Mm",
    889: "%", 944: "W", 1000: "…→", 1015: "@", 576: "µ",
}  # fmt: skip
_BOLD = {
    238: "'", 278: ",./I\\ijl ", 280: "|", 333: "!()-:;[]`ft·₂", 389: "*r{}", 400: "°", 474: '"',
    500: "z", 556: "#$0123456789J_aceksvxy–", 584: "+<=>^~×", 600: "µ", 611: "?FLTZbdghnopqu",
    667: "EPSVXY", 722: "&ABCDHKNRU", 778: "GOQw", 833: "M", 889: "%m", 944: "W", 975: "@",
    1000: "…→",
}  # fmt: skip
_WIDTHS = [
    {letter: width / 1000 for width, letters in table.items() for letter in letters}
    for table in (_REGULAR, _BOLD)
]
# direction marks would turn what stands around them; the rest XML forbids or nobody sees
_UNWANTED = re.compile(
    "[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_BROKEN = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_ARABIC_FORMS = re.compile("[\ufb50-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc]+")  # some are 10 em wide


def clean(text: str) -> str:
    """One line that XML can hold: no control characters or direction marks, two accents a letter.

    What is no character at all becomes U+FFFD.
    """
    text = _UNWANTED.sub("", _BROKEN.sub("\ufffd", text))
    text = _ARABIC_FORMS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    kept: list[str] = []
    accents = 0
    for letter in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(letter)
        accents = accents + 1 if kind in ("Mn", "Me") else 0
        if accents <= 2:  # more pile up over the lines above
            kept.append(" " if kind in ("Cc", "Zl", "Zp") else letter)
    return " ".join("".join(kept).split())


def width(text: str, size: float, bold: bool = False) -> float:
    """How wide a line is at a font size; rather too much for letters that are not in the table."""
    return size * sum(_em(letter, bold) for letter in text)


def shorten(text: str, room: float, size: float, bold: bool = False) -> str:
    """The text, or as much of it as fits before an ellipsis."""
    if width(text, size, bold) <= room:
        return text
    room -= width(_ELLIPSIS, size, bold)
    end = 0
    while end < len(text) and (room := room - width(text[end], size, bold)) >= 0:
        end += 1
    while end and (text[end - 1] == "\u200d" or _joins(text[end : end + 1])):  # not within a sign
        end -= 1
    return text[:end].rstrip() + _ELLIPSIS


def line(
    text: str,
    x: float,
    y: float,
    room: float,
    size: float = 11,
    bold: bool = False,
    anchor: str = "start",
    fill: str = INK,
    least: float = 0.8,
) -> Markup:
    """A `<text>` of one line that is at most `room` wide: shrunk to `least` of its size, then cut.

    The text is cleaned and escaped here.
    """
    text = clean(text)
    natural = width(text, size, bold)
    if natural > room:
        size *= max(least, room / natural)
        text = shorten(text, room + 0.01, size, bold)
        natural = width(text, size, bold)
    known = all(letter in _WIDTHS[bold] for letter in text)
    held = f' textLength="{natural:.1f}" lengthAdjust="spacingAndGlyphs"'
    return Markup('<text x="{}" y="{}" font-size="{}"{}{}{}{}>{}</text>').format(
        _short(x), _short(y), _short(size),
        Markup(' font-weight="bold"' if bold else ""),
        Markup(f' text-anchor="{anchor}"' if anchor != "start" else ""),
        Markup(f' fill="{fill}"' if fill != INK else ""),
        Markup(held if known and natural > _TIGHT * room else ""),
        escape(text),
    )  # fmt: skip


def wrap(texts: Iterable[str], room: float, size: float, most: int) -> list[str]:
    """Sentences one after the other, in lines; what is more than `most` of them is cut."""
    lines: list[str] = []
    left = [word for text in texts for word in clean(text).split(" ") if word]
    while left and len(lines) < most:
        taken = 1
        while taken < len(left) and width(" ".join(left[: taken + 1]), size) <= room:
            taken += 1
        last = len(lines) == most - 1
        lines.append(shorten(" ".join(left if last else left[:taken]), room, size))
        left = left[taken:]
    return lines


def _em(letter: str, bold: bool) -> float:
    found = _WIDTHS[bold].get(letter)
    if found is not None:
        return found
    if unicodedata.category(letter) in _NO_ROOM:
        return 0.0
    return _LETTER if letter < "\u0530" else _UNKNOWN


def _joins(letter: str) -> bool:
    """Whether a character belongs to the one before it."""
    return letter == "\u200d" or (
        bool(letter) and unicodedata.category(letter) in ("Mn", "Me", "Cf")
    )


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


__all__ = ["INK", "clean", "line", "shorten", "width", "wrap"]
