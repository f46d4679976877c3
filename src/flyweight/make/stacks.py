"""What was cut where: the teacher's layers beside the student's, to one scale.

Each layer is a thin bar (hidden width) on a thick one (MLP width); the input is at the bottom.
"""

from __future__ import annotations

from dataclasses import dataclass

from flyweight.card import Card

HIGH = 240.0  # pixels of the higher stack, unless that makes its layers too thin or too thick


@dataclass(frozen=True)
class Block:
    """A bar: "mlp" or "hidden" of the teacher, of a layer that is "gone", of what is "kept"."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    round: float


@dataclass(frozen=True)
class Stacks:
    """Both stacks, and the lines from each kept layer of the teacher to the student's."""

    width: int
    height: float
    blocks: list[Block]
    links: list[str]  # SVG paths
    middle: float  # between the two
    thin: bool  # too thin for outlines


def stacks(card: Card, width: int) -> Stacks:
    """The teacher's stack at the left, the student's at the right, on the same ground."""
    teacher, student = card.teacher.shape, card.shape
    layers = max(teacher["layers"], student["layers"], 1)
    pitch = max(3.0, min(20.0, HIGH / layers))
    side = width * 0.41
    scale = side / max(
        *(shape[key] for shape in (teacher, student) for key in ("hidden", "mlp")), 1
    )
    height = pitch * layers
    kept = [layer for layer in sorted(card.kept_layers) if layer < teacher["layers"]]

    def layer(shape: dict[str, int], index: int, centre: float, kind: str) -> list[Block]:
        y, thick = height - pitch * (index + 1), pitch * 0.8
        return [
            _block(kind + "mlp", centre, y, shape["mlp"] * scale, thick),
            _block(kind + "hidden", centre, y + thick / 4, shape["hidden"] * scale, thick / 2),
        ]

    left, right = side / 2, width - side / 2
    blocks: list[Block] = []
    for index in range(teacher["layers"]):
        gone = "gone " if kept and index not in kept else ""
        blocks += layer(teacher, index, left, gone)
        if index in kept:
            blocks += layer(student, index, left, "kept ")
    for index in range(student["layers"]):
        blocks += layer(student, index, right, "kept ")
    start = left + max(teacher["hidden"], teacher["mlp"]) * scale / 2 + 5
    end = right - max(student["hidden"], student["mlp"]) * scale / 2 - 5

    def link(old: int, new: int) -> str:
        a, b = (round(height - pitch * (each + 0.6), 2) for each in (old, new))
        half = (start + end) / 2
        return f"M{start:.1f} {a}C{half:.1f} {a} {half:.1f} {b} {end:.1f} {b}"

    links = [link(old, new) for new, old in enumerate(kept[: student["layers"]])]
    return Stacks(width, round(height, 2), blocks, links, round((start + end) / 2, 1), pitch < 10)


def _block(kind: str, centre: float, y: float, width: float, height: float) -> Block:
    rounded = [centre - width / 2, y, width, height, min(height / 4, 3)]
    return Block(kind, *(round(each, 2) for each in rounded))


def ranges(numbers: list[int]) -> str:
    """Numbers in order, neighbours joined: [1, 2, 3, 6] is "1 to 3, 6"."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    said = [
        f"{part[0]} to {part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts
    ]
    return ", ".join(said)
