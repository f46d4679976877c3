"""The templates of pictures, pages and cards: where they lie, and how they are read."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(package: str, *, escaped: bool = True) -> Environment:
    """Templates beside the modules of a package; a name that is not given is an error.

    `escaped`: what is put in is escaped for HTML and SVG.
    """
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


__all__ = ["environment"]
