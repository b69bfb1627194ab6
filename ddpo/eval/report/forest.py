"""A table with a plot in it: each row has its intervals drawn beside its numbers, on one axis that stands below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

from ddpo.eval.report.intervals import Axis, Mark, axis_cell, interval_cell
from ddpo.eval.report.tags import cells, scrolled
from ddpo.stats.paired import Estimate

__all__ = ["Group", "Line", "forest_table", "interval_mark"]


@dataclass(frozen=True, slots=True)
class Line:
    """One row: its name, what is drawn, and its cells (markup)."""

    name: str
    marks: Sequence[Mark]
    cells: Sequence[str]
    css: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows under a common heading (markup; "" for none)."""

    heading: str
    lines: Sequence[Line]


def interval_mark(estimate: Estimate, role: str) -> Mark:
    """An estimate as a mark of its list's role."""
    return Mark(estimate.mean, estimate.low, estimate.high, "seen" if role == "seen" else "heldout")


def forest_table(label: str, columns: Sequence[str], groups: Sequence[Group], axis: Axis) -> str:
    """The table.

    Args:
        label: what it shows, in words.
        columns: markup; the first names the rows, and the plot stands after it.
        groups: the rows.
        axis: of the plots.
    """
    head = f'<th scope="col" class="l">{columns[0]}</th><th scope="col" class="l">with 95&nbsp;% interval</th>'
    head += "".join(f'<th scope="col">{name}</th>' for name in columns[1:])
    if all(
        len(group.lines) <= 1 for group in groups
    ):  # one model: its name says nothing, the headings name the rows
        groups = [
            Group("", [replace(line, name=group.heading or line.name) for line in group.lines])
            for group in groups
        ]
    bodies = "".join(_group(group, len(columns) + 1, axis) for group in groups if group.lines)
    rest = f'<td colspan="{len(columns) - 1}"></td>' if len(columns) > 1 else ""
    foot = f'<tr class="foot"><td></td><td class="plot">{axis_cell(axis)}</td>{rest}</tr>'
    caption = f'<caption class="away">{escape(label)}</caption>'
    return scrolled(
        label,
        f'<table class="forest">{caption}<thead><tr>{head}</tr></thead>{bodies}<tbody aria-hidden="true">{foot}</tbody></table>',
    )


def _group(group: Group, width: int, axis: Axis) -> str:
    heading = (
        f'<tr class="group"><th scope="rowgroup" colspan="{width}" class="l"><div class="stick">{group.heading}</div></th></tr>'
        if group.heading
        else ""
    )
    return f"<tbody>{heading}{''.join(_line(line, axis) for line in group.lines)}</tbody>"


def _line(line: Line, axis: Axis) -> str:
    css = f' class="{line.css}"' if line.css else ""
    return f'<tr{css}><th scope="row">{line.name}</th><td class="plot">{interval_cell(axis, line.marks)}</td>{cells(line.cells)}</tr>'
