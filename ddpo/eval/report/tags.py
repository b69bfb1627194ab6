"""The few patterns of markup that every section of the page shares. What they take as text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

__all__ = ["badge", "cells", "details", "facts", "key", "scrolled", "section", "table"]

GRADES: Final = {  # word → class and shape, so that a grade is told by both
    "no sign": ("g-none", '<circle cx="8" cy="8" r="5.5" class="line"/>'),
    "watch": ("g-watch", '<path d="M8 2L14.5 13.5H1.5z" class="line"/>'),
    "strong signs": ("g-strong", '<path d="M5 1.5h6l3.5 3.5v6L11 14.5H5L1.5 11V5z" class="full"/>'),
    "not measured": ("g-unknown", '<path d="M2 8h12" class="line dash"/>'),
    "too little measured": ("g-unknown", '<path d="M2 8h12" class="line dash"/>'),
}


def section(name: str, title: str, body: str, told: str = "") -> str:
    """A section with its heading; `told` is markup below it."""
    intro = f'<p class="soft">{told}</p>' if told else ""
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>{intro}{body}</section>'


def details(summary: str, body: str, shown: bool = False, css: str = "") -> str:
    """A part that opens; both are markup."""
    attributes = (" open" if shown else "") + (f' class="{css}"' if css else "")
    return f"<details{attributes}><summary>{summary}</summary>{body}</details>"


def scrolled(label: str, body: str) -> str:
    """What may be wider than the screen: it scrolls by itself, with the keyboard too."""
    return (
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">{body}</div>'
    )


def cells(values: Iterable[str]) -> str:
    """Table cells of markup."""
    return "".join(f"<td>{value}</td>" for value in values)


def table(
    label: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    css: Iterable[str] = (),
    words: bool = False,
) -> str:
    """A table of markup whose first column names the rows; `css` gives each row its class, `words` is for cells of text, not numbers."""
    names = "".join(
        f'<th scope="col"{" class=l" if not position else ""}>{name}</th>'
        for position, name in enumerate(head)
    )
    classes, words_class = iter(css), ' class="words"' if words else ""
    lines = "".join(
        f'<tr class="{next(classes, "")}"><th scope="row">{row[0]}</th>{cells(row[1:])}</tr>'.replace(
            ' class=""', ""
        )
        for row in rows
    )
    return scrolled(
        label,
        f'<table{words_class}><caption class="away">{escape(label)}</caption><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table>',
    )


def facts(items: Iterable[tuple[str, str]]) -> str:
    """Names and texts, both escaped."""
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in items)
    return f'<dl class="facts">{listed}</dl>' if listed else ""


def badge(grade: str) -> str:
    """A grade by word, shape and colour."""
    css, shape = GRADES[grade]
    return f'<span class="grade {css}"><svg viewBox="0 0 16 16" aria-hidden="true">{shape}</svg>{escape(grade)}</span>'


def key(role: str) -> str:
    """The mark of a split, the same as in the plots; told in words to a screen reader."""
    css, shape, words = (
        ("seen", "●", "in training") if role == "seen" else ("heldout", "◆", "not in training")
    )
    return f'<span class="key-{css}" role="img" aria-label="{words}">{shape}</span>'
