"""The model folder's `README.md`: a Hugging Face model card."""

from __future__ import annotations

import json
import re
from pathlib import PurePath

from flyweight.card import Card
from flyweight.make import words
from flyweight.make.energy_words import sticker_line
from flyweight.make.report import judged_file, run_commands
from flyweight.make.rivals import order_rows, rivals_sentence
from flyweight.templates import environment

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def model_card(card: Card) -> str:
    """A card as a Hugging Face model card: YAML front matter, then Markdown."""
    # Markdown: `plain` escapes what others wrote
    found = environment("flyweight.make", escaped=False)
    found.filters |= {"plain": _plain, "yaml": _yaml}
    rows = order_rows(card.rows)
    text = found.get_template("model_card.md.j2").render(
        card=card,
        rows=rows,
        rivals=rivals_sentence(card),
        chosen=next((row for row in rows if row.chosen), None),
        scorer=card.task.score,
        base=_base_model(card.teacher.name),
        file=judged_file(card),
        sticker=card.sticker and sticker_line(card.sticker),
        engines=words.engines(rows),
        unit="texts" if card.classifies else "tokens",
        commands=run_commands(card),
        words=words,
    )
    return text.encode("utf-8", "replace").decode().rstrip() + "\n"


def _base_model(name: str) -> str:
    """The teacher as the hub names it; of a path only its last part, never where it lay."""
    return name if _HUB_NAME.fullmatch(name) else PurePath(name).name or name


def _plain(text: str) -> str:
    """One line in which nothing is Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def _yaml(text: str) -> str:
    """A YAML scalar: JSON's strings are YAML's."""
    return json.dumps(text)
