"""The verb `families`: which architectures can be made smaller, and along which axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.anatomy import Family

# go with head_dim, hidden and encoder_layers
FOLLOWING = ("value_dim", "seen", "encoder_mlp", "global_mlp")


def families(*, json: bool = False) -> list[dict[str, Any]]:
    """List the architectures that can be made smaller, and what can be cut in each.

    Another one is declared in a file of its own: docs/guides/teach-a-family.md.

    Args:
        json: Print JSON instead of a table.

    Returns:
        For each family its name, the `model_type`s of config.json that belong to it, the axes along
        which it can be cut, the class of transformers that loads it, and whether it is written to
        GGUF.
    """
    from json import dumps

    from flyweight.anatomy import families as known

    found = [_told(family) for family in known()]
    if json:
        print(dumps(found, indent=2))
    else:
        _show(found)
    return found


def _told(family: Family) -> dict[str, Any]:
    return {
        "name": family.name,
        "model_types": list(family.model_types),
        "axes": list(family.cuttable),
        "loaded_by": family.model,
        "gguf": family.gguf is not None,
    }


def _show(found: list[dict[str, Any]]) -> None:
    """Two tables: the families with a mark for each axis, and what the axes are."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from flyweight.anatomy import AXES

    console = Console()
    axes = [axis for axis in AXES if axis not in FOLLOWING]
    table = Table(title="What can be cut", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("family", no_wrap=True)
    for axis in axes:
        heading = "vocab-\nulary" if axis == "vocabulary" else axis.replace("_", "\n")
        table.add_column(heading, justify="center", no_wrap=True)
    table.add_column("GGUF", justify="center")
    for each in found:
        others = [name for name in each["model_types"] if name != each["name"]]
        name = "\n".join([each["name"], *(f"  {other}" for other in others)])
        marks = ["x" if axis in each["axes"] else "" for axis in axes]
        table.add_row(name, *marks, "x" if each["gguf"] else "")
    console.print(table)
    for axis in axes:
        console.print(f"{axis}: {AXES[axis]}", highlight=False)
