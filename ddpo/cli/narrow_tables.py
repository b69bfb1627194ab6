"""Tables on a terminal that is too narrow for them: each row below its label, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

__all__ = ["fits", "stacked"]

READABLE: Final = 12  # columns of a cell that may wrap
LONGEST_LABEL: Final = 32  # columns of a label that must stay on its line
INDENT: Final = 2


def fits(table: Table, console: Console, options: ConsoleOptions) -> bool:
    """True if the labels of a table, and all that does not wrap, stay whole beside readable cells.

    A table without a header lays out text, and fits always.
    """
    if not table.show_header or len(table.columns) < 2:
        return True
    widths = [
        _width(column, console, options, is_label=place == 0)
        for place, column in enumerate(table.columns)
    ]
    return sum(widths) + _gap(table) * (len(widths) - 1) <= options.max_width


def _gap(table: Table) -> int:
    """The columns between two cells: the padding of both, and a line or space of the frame."""
    _, right, _, left = table.padding
    return right + left + (table.box is not None)


def _width(column: Column, console: Console, options: ConsoleOptions, *, is_label: bool) -> int:
    """The columns that a column of a table needs."""
    cells = [column.header, *column.cells]
    wide = options.update(max_width=1000)
    widest = max((Measurement.get(console, wide, cell).maximum for cell in cells), default=0)
    if column.no_wrap:
        return widest
    return min(widest, LONGEST_LABEL if is_label else READABLE)


def stacked(table: Table) -> Iterator[RenderableType]:
    """The rows of a table as labels, each above its other cells with their headers."""
    if table.title:
        title = table.title
        yield Text.from_markup(title, style="bold") if isinstance(title, str) else title
    label, *others = table.columns
    rows = zip(label.cells, *(column.cells for column in others), strict=True)
    for name, *cells in rows:
        yield _styled(name, label)
        for column, cell in zip(others, cells, strict=True):
            text = _styled(cell, column)
            if isinstance(text, Text) and not text.plain.strip():
                continue
            header = _styled(column.header, None)
            if isinstance(text, Text) and isinstance(header, Text) and header.plain:
                text = Text.assemble((f"{header.plain}: ", "dim"), text)
            yield Padding(text, (0, 0, 0, INDENT))
    yield ""


def _styled(cell: RenderableType, column: Column | None) -> RenderableType:
    """A cell as text that wraps, in the style of its column."""
    text = Text.from_markup(cell) if isinstance(cell, str) else cell
    if isinstance(text, Text):
        text = text.copy()
        text.no_wrap = False
        text.overflow = "fold"
        if column is not None and column.style:
            text.stylize(column.style)
    return text
