"""Order of the website's pages: that of the map in docs/README.md."""

from __future__ import annotations

import posixpath
import re
from typing import Any, Final

from pages import CARDS, Pages

__all__ = ["navigation"]

MAP: Final = "docs/README.md"
GENERATED_AFTER: Final = "Reference"
"""Section of the map behind which the generated references stand."""

Entry = dict[str, Any]


def navigation(pages: Pages, generated: list[Entry]) -> list[Entry]:
    """The pages of the site in order, as the setting `nav` of MkDocs.

    Args:
        pages: the written pages.
        generated: entries of the pages that are made of the code.
    """
    text = (pages.root / MAP).read_text(encoding="utf-8")
    entries: list[Entry] = [{"Home": ["index.md", {"All pages": "map.md"}]}]
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        entries.append({title: _entries_of(pages, body)})
        if title == GENERATED_AFTER:
            entries.extend(generated)
    return entries


def _entries_of(pages: Pages, section: str) -> list[Entry]:
    """The pages that a section of the map links to, each once, in order."""
    found: dict[str, Entry] = {}
    for title, link in re.findall(r"\[([^\]]+)\]\(([^)#\s]+)\)", section):
        name = posixpath.normpath(posixpath.join(posixpath.dirname(MAP), link))
        place = pages.link(name, "index.md")
        if place not in found:
            found[place] = _cards(pages) if place == f"{CARDS}/index.md" else {_named(title): place}
    return list(found.values())


def _named(title: str) -> str:
    """A link's text as a title; names of files stay as they are."""
    plain = title.replace("`", "")
    return plain if "/" in plain or "." in plain else plain[0].upper() + plain[1:]


def _cards(pages: Pages) -> Entry:
    """The list of reward cards, and each of them."""
    index = f"{CARDS}/index.md"
    cards = sorted(path.name for path in (pages.folder / CARDS).glob("*.md"))
    each = [{name.removesuffix(".md"): f"{CARDS}/{name}"} for name in cards if name != "index.md"]
    return {pages.title_of(index): [index, *each]}
