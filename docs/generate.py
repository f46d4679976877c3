"""Write docs/reference from the code; `--check` only says whether it is current.

`cli.md` comes from the verbs' signatures and docstrings, `card.md` and the two schemas from the
classes of card and sticker: the pages cannot say anything else than the program does, once current.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import typer

from flyweight import cli
from flyweight.card import Card
from flyweight.sticker_card import Sticker

REFERENCE = Path(__file__).parent / "reference"

HEAD = """\
# The command line

Made by `make docs` from the code; do not edit. Every command is also a function of the same name
(`flyweight make TEACHER --task T` is `flyweight.make(teacher, task=T)`).

| exit status | means |
|---|---|
| 0 | done, whatever the verdict: that is `word` in `status OUT --json`; `serve` ended by Ctrl-C |
| 1 | an error that nobody foresaw, with its traceback: a bug |
| 2 | bad input, a missing extra, a full disk: one line on stderr says what, where, and what to do |
| 130 | Ctrl-C |
"""


def reference() -> str:
    """The whole page, in Markdown."""
    group: Any = typer.main.get_command(cli.application())
    return "\n".join([HEAD, *(_section(name, command) for name, command in group.commands.items())])


def _section(name: str, command: Any) -> str:
    parameters = [each for each in command.params if each.name != "help"]
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    usage = " ".join(["flyweight", name, *map(_placeholder, arguments), "[OPTIONS]"])
    rows = ["| | default | meaning |", "|---|---|---|", *map(_row, parameters)]
    return "\n".join(
        [f"## {name}", "", "```", usage, "```", "", command.help, "", *rows, ""],
    )


def _placeholder(argument: Any) -> str:
    name = argument.name.upper()
    return name if argument.required else f"[{name}]"


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        shown = f"`{parameter.name.upper()}`"
    else:
        shown = ", ".join(f"`{each}`" for each in [*parameter.opts, *parameter.secondary_opts])
    help_text = parameter.help.replace("|", "\\|")
    return f"| {shown} | {_default(parameter)} | {help_text} |"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or value in ([], ()):
        return ""
    if isinstance(value, list | tuple):
        return f"`{' '.join(map(str, value))}`"
    return f"`{value}`"


CARD_HEAD = """\
# card.json

Made by `make docs` from `flyweight.card`; do not edit. The JSON Schema is
[card.schema.json](card.schema.json). Fields are added, never renamed; `schema_version` grows when
a field's meaning changes. Sizes are bytes, times seconds, scores in the scorer's own range.
"""


def card_page() -> str:
    """The card's fields, a table for each of its parts, in Markdown."""
    schema = Card.model_json_schema()
    parts = {"Card": schema, **schema["$defs"]}
    return "\n".join([CARD_HEAD, *(_part(name, part) for name, part in parts.items())])


def _part(name: str, part: dict[str, Any]) -> str:
    rows = ["| field | type |", "|---|---|"]
    rows += [f"| `{field}` | {_type(kind)} |" for field, kind in part["properties"].items()]
    return "\n".join([f"## {name}", "", part.get("description", ""), "", *rows, ""])


def _type(kind: dict[str, Any]) -> str:
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in kind:
        return " or ".join(map(_type, kind["anyOf"]))
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if kind.get("type") == "array":
        return f"list of {_type(kind['items'])}"
    if kind.get("type") == "object":
        return f"by name: {_type(kind['additionalProperties'])}"
    return kind.get("type", "anything")


def pages() -> dict[Path, str]:
    """Every page of the reference with what should stand in it."""
    schema = json.dumps(Card.model_json_schema(), indent=2)
    return {
        REFERENCE / "cli.md": reference(),
        REFERENCE / "card.md": card_page(),
        REFERENCE / "card.schema.json": schema + "\n",
        REFERENCE / "sticker.schema.json": json.dumps(Sticker.model_json_schema(), indent=2) + "\n",
    }


def main() -> None:
    """Write the pages, or with `--check` exit with 1 where one is not current."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        REFERENCE.mkdir(exist_ok=True)
        for page, text in pages().items():
            page.write_text(text, encoding="utf-8")
        return
    for page, text in pages().items():
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            sys.exit(f"{page.name} is not what the code says: run `make docs`")


if __name__ == "__main__":
    main()
