"""The sticker's SVG as a PNG: the same drawing, with a font that Flyweight brings along.

resvg draws it: in the process, without a browser, and without loading anything from outside.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import resvg_py

from flyweight.energy.sticker_svg import sticker_svg
from flyweight.sticker_card import Sticker

_OURS = 0x460  # Latin, Greek and Cyrillic letters: Arimo's
_SIGNS = frozenset("–…₂")


def sticker_png(sticker: Sticker, scale: int = 2) -> bytes:
    """The sticker as a PNG, `scale` times as wide and high as the drawing; see `svg_png`."""
    return svg_png(sticker_svg(sticker), scale)


def svg_png(svg: str, scale: int = 2) -> bytes:
    """A drawing of ours as a PNG, `scale` times as wide and high.

    The same bytes on every machine; only for a name in a script that Arimo has no letters of are
    the machine's own fonts looked through, which may differ.
    """
    ours = all(ord(letter) < _OURS or letter in _SIGNS for letter in svg)
    with as_file(files("flyweight.energy").joinpath("fonts")) as fonts:
        return resvg_py.svg_to_bytes(
            svg_string=svg,
            zoom=scale,
            skip_system_fonts=ours,
            font_dirs=[str(fonts)],
            font_family="Arimo",
            sans_serif_family="Arimo",
        )


__all__ = ["sticker_png", "svg_png"]
