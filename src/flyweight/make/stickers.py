"""A model's sticker from its card, and the sticker's pictures."""

from __future__ import annotations

from pathlib import Path

from flyweight.card import Card
from flyweight.energy.constants import JOULES_A_KWH
from flyweight.energy.machine import computer_kind
from flyweight.energy.sticker import SHARED_BY, Labelled, make_sticker
from flyweight.energy.sticker_png import sticker_png
from flyweight.energy.sticker_svg import sticker_svg
from flyweight.figure import Figure
from flyweight.folder import write_sticker
from flyweight.make.words import LIKELIHOOD
from flyweight.sticker_card import Metered, Sticker


def labelled(card: Card) -> Labelled:
    """The chosen model of a card, with its score where that is a share of right answers."""
    chosen, score = card.student, card.scores.student.test.mean
    is_share = card.task.score != LIKELIHOOD and 0 <= score <= 1
    return Labelled(
        name=card.name,
        bits=chosen.bits,
        bytes=chosen.bytes,
        engine=chosen.engine,
        threads=chosen.threads,
        task=card.task.name,
        score=score if is_share else None,
        score_name=card.task.score if is_share else None,
    )


def sticker_of(
    label: Labelled,
    metered: Metered,
    country: str | None,
    making_kwh: Figure | None,
    shared_by: int = SHARED_BY,
) -> Sticker:
    """The sticker of a model whose answers were metered on this computer."""
    making = making_kwh and making_kwh * JOULES_A_KWH
    return make_sticker(label, metered, computer_kind(), country, making, shared_by)


def put_sticker(folder: Path, sticker: Sticker) -> None:
    """Write a sticker and its pictures into a folder."""
    write_sticker(folder, sticker, sticker_svg(sticker), sticker_png(sticker))


__all__ = ["labelled", "put_sticker", "sticker_of"]
