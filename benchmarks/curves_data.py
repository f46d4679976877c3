"""How does a family of learning curves look? What plateau.py draws: loss against tokens, as SVG.

Tokens, and nats that span a decade or so, are on a logarithmic scale; a dashed line marks the level
that is raced to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from flyweight.make.axis import Axis

WIDTH, HEIGHT = 640, 400
WIDE = 8.0  # times the smallest
LEFT, RIGHT, TOP, BOTTOM = 64.0, 496.0, 36.0, 352.0
FONT = 'font-family="system-ui, sans-serif" font-size="12" fill="#333"'
DASHED = 'stroke="#333" stroke-dasharray="5 4"'
COLOURS = ("#0b6e4f", "#6cae75", "#b5541c", "#7a7a7a", "#3b5ba5", "#a0307a")

Points = Sequence[tuple[float, float]]  # (tokens, nats), in any order


def draw(path: Path, title: str, curves: Mapping[str, Points], level: float) -> None:
    """Write the picture: one line a curve, its name at its end."""
    tokens = [x for points in curves.values() for x, _ in points]
    nats = [max(1e-6, y) for points in curves.values() for _, y in points]
    across = Axis(min(tokens) / 1.1, max(tokens) * 1.1, LEFT, RIGHT, log=True)
    least, most = min(*nats, level), max(nats)
    up = Axis(least / 1.1, most * 1.1, BOTTOM, TOP, log=most > WIDE * least)
    goal = up.place(level)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{title}</text>',
        *_grid(across, up),
        f'<line x1="{LEFT}" x2="{RIGHT}" y1="{goal}" y2="{goal}" {DASHED}/>',
    ]
    ends: list[float] = []
    for colour, (name, points) in zip(COLOURS, curves.items(), strict=False):
        placed = [(across.place(x), up.place(max(1e-6, y))) for x, y in sorted(points)]
        line = " ".join(f"{x},{y}" for x, y in placed)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in placed]
        x, y = placed[-1]
        while any(abs(y - other) < 14 for other in ends):  # names must not lie on each other
            y += 2
        ends.append(y)
        parts.append(f'<text x="{x + 8}" y="{y + 4}" fill="{colour}">{name}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _grid(across: Axis, up: Axis) -> list[str]:
    """Ticks with their lines, and what the scales show."""
    parts = []
    for value in across.ticks(6):
        x, text = across.place(value), f"{value / 1e3:g}k" if value < 1e6 else f"{value / 1e6:g}M"
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{BOTTOM + 18}" text-anchor="middle">{text}</text>')
    for value in up.ticks(8):
        y = up.place(value)
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    middle = (LEFT + RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{BOTTOM + 38}" text-anchor="middle">tokens</text>')
    parts.append(f'<text x="8" y="{TOP - 4}" font-size="11">nats a token</text>')
    return parts
