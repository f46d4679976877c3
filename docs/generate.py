"""Write docs/reference/cli.md from the command line itself; `--check` only says if it is current.

The commands come from the verbs' signatures and docstrings, so the page cannot say anything else
than the program does, once it is current.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import typer

from flyweight import cli

PAGE = Path(__file__).parent / "reference" / "cli.md"

HEAD = """\
# The command line

Made by `make docs` from the code; do not edit. Every command is also a function of the same name
(`flyweight make TEACHER --task T` is `flyweight.make(teacher, task=T)`).
Bad input ends with one line on stderr and exit status 2, Ctrl-C with 130.
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
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return f"`{' '.join(map(str, value))}`"
    return f"`{value}`"


def main() -> None:
    """Write the page, or with `--check` exit with 1 where it is not current."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(reference(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != reference():
        sys.exit(f"{PAGE.name} is not what the code says: run `make docs`")


if __name__ == "__main__":
    main()
