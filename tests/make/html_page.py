"""A page, taken apart by an HTML parser."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "wbr", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """A page taken apart: every tag with its attributes, all text, and whether tags balance."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.cells: list[list[str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if {"td", "th"} & set(self._open):
            self.cells[-1][-1] += data

    @property
    def said(self) -> str:
        return plain("".join(self.text))

    def having(self, tag: str, kind: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag and kind in classes(attrs)]


def classes(attrs: dict[str, str]) -> list[str]:
    return attrs.get("class", "").split()


def plain(text: str) -> str:
    return " ".join(text.replace("\u00a0", " ").split())
