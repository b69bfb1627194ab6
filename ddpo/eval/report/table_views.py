"""Views of tables for the templates: plain rows, and rows with their intervals in a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ddpo.eval.report.interval_plots import Axis, Mark
from ddpo.stats.paired import Estimate

__all__ = ["Cell", "Label", "PlotGroup", "PlotRow", "PlotTable", "TableRow", "interval_mark"]


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of texts; the first one names it."""

    cells: Sequence[str]
    css: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """The name of a row or of a group of rows."""

    text: str
    role: str = ""  # role of a prompt list, shown as its mark; "" for none
    note: str = ""  # small text beside the name


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table with a plot."""

    text: str
    lead: str = ""  # number in bold before the text
    note: str = ""  # small text after it
    is_within_noise: bool = False  # the lead is marked with ~ in place of bold


@dataclass(frozen=True, slots=True)
class PlotRow:
    """One row: its name, its marks in the plot, and its cells."""

    label: Label
    marks: Sequence[Mark]
    cells: Sequence[Cell]
    css: str = ""


@dataclass(frozen=True, slots=True)
class PlotGroup:
    """Rows under a common heading; None for no heading."""

    heading: Label | None
    rows: Sequence[PlotRow]


@dataclass(frozen=True, slots=True)
class PlotTable:
    """A table in which the intervals of each row are drawn on one axis, which stands below."""

    groups: Sequence[PlotGroup]
    axis: Axis

    @staticmethod
    def of(groups: Sequence[PlotGroup], axis: Axis) -> PlotTable:
        """A table of the groups that have rows; headings of single rows become their names."""
        filled = [group for group in groups if group.rows]
        if all(len(group.rows) == 1 for group in filled):
            filled = [PlotGroup(None, [_renamed(group)]) for group in filled]
        return PlotTable(filled, axis)


def _renamed(group: PlotGroup) -> PlotRow:
    """The only row of a group under the name of the group."""
    row = group.rows[0]
    return row if group.heading is None else replace(row, label=group.heading)


def interval_mark(estimate: Estimate, role: str) -> Mark:
    """An estimate as a mark of the role of its prompt list."""
    kind = "seen" if role == "seen" else "heldout"
    return Mark(estimate.mean, estimate.low, estimate.high, kind)
