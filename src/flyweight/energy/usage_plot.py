"""What was used, as a picture: a bar for each day, model or key, by what it was used for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from flyweight.energy.constants import JOULES_A_WH
from flyweight.energy.ledger import Kind, Used
from flyweight.energy.sticker_png import svg_png
from flyweight.energy.sticker_text import clean, shorten
from flyweight.energy.sticker_words import JOULES, WATT_HOURS, amount
from flyweight.errors import OptionError
from flyweight.folder import disk_errors, make_place, write_whole
from flyweight.templates import environment

KINDS: dict[Kind, str] = {"answer": "answers", "make": "making models", "idle": "waiting"}
FILLS: dict[Kind, str] = {"answer": "#0b5a54", "make": "#c9822b", "idle": "url(#waiting)"}
_ORDER: list[Kind] = [*KINDS]
WIDTH, LEFT, RIGHT = 720, 150, 120  # pixels: all, names, numbers
ROW, TOP, BELOW = 30, 96, 40
MOST = 60  # bars; of more the last


def named(label: str) -> str:
    """A label for people: what belongs to no key or no model says so."""
    return clean(label) or "none"


def check_plot(file: Path) -> None:
    """OptionError unless a picture can be written in the form that a file's ending names."""
    if file.suffix.lower() not in (".svg", ".png"):
        raise OptionError(f"--plot is {file}: give a file that ends in .svg or .png.")


def write_plot(rows: Sequence[Used], by: str, file: Path) -> None:
    """Write the picture as .svg or .png. OptionError for another ending, FolderError, NoSpace."""
    check_plot(file)
    drawn = usage_svg(rows, by)
    make_place(file.parent)
    with disk_errors(file):
        write_whole(file, drawn if file.suffix.lower() == ".svg" else svg_png(drawn))


def usage_svg(rows: Sequence[Used], by: str) -> str:
    """The picture as SVG text; energy of all that the computer took, its building included."""
    groups = [(label, list(each)) for label, each in groupby(rows, key=lambda row: row.label)]
    groups = groups[-MOST:]
    most = max((sum(row.facility for row in each) for _, each in groups), default=0.0) or 1.0
    room = WIDTH - LEFT - RIGHT
    small = most < JOULES_A_WH
    unit, scale = (JOULES, 1.0) if small else (WATT_HOURS, 1 / JOULES_A_WH)
    bars = []
    for place, (label, each) in enumerate(groups):
        whole, at = sum(row.facility for row in each), float(LEFT)
        parts: list[dict[str, object]] = []
        for row in sorted(each, key=lambda row: _ORDER.index(row.kind)):
            width = room * row.facility / most
            parts.append({"x": round(at, 1), "width": round(width, 1), "fill": FILLS[row.kind]})
            at += width
        bars.append(
            {
                "name": shorten(named(label), LEFT - 24, 13),
                "full": named(label),
                "y": TOP + place * ROW,
                "parts": parts,
                "end": round(at + 8, 1),
                "text": amount(whole * scale, unit),
            }
        )
    used = {row.kind for row in rows}
    return (
        environment("flyweight.energy")
        .get_template("usage.svg.j2")
        .render(
            width=WIDTH,
            height=TOP + max(1, len(bars)) * ROW + BELOW,
            left=LEFT,
            right=RIGHT,
            top=TOP,
            row=ROW,
            bars=bars,
            by=by,
            kinds=[(KINDS[kind], FILLS[kind]) for kind in _ORDER if kind in used],
        )
    )


__all__ = ["KINDS", "check_plot", "named", "usage_svg", "write_plot"]
