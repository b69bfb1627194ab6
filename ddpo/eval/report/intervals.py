"""Estimates with their intervals, drawn inside the cells of a table: one axis for the column, told in its last row."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ddpo.eval.report.plots import Scale, line, mark, svg, text, tick_text, ticks

__all__ = ["Axis", "Mark", "axis_cell", "interval_cell"]

WIDTH: Final = 200
EDGE: Final = 12
ROW: Final = 11  # between the marks of one cell


@dataclass(frozen=True, slots=True)
class Mark:
    """An estimate of one prompt list."""

    mean: float
    low: float
    high: float
    css: str  # "seen" or "heldout"


@dataclass(frozen=True, slots=True)
class Axis:
    """The common axis of a column; `reference` is what no change would give, `floor` the noise around it (NaN: unknown)."""

    scale: Scale
    reference: float
    label: str
    floor: float = math.nan

    @staticmethod
    def over(marks: Sequence[Mark], reference: float, label: str, floor: float = math.nan) -> Axis:
        """An axis for these marks. One interval far wider than the others does not squeeze them: it is cut, with an arrow."""
        means = [reference, *(m.mean for m in marks if math.isfinite(m.mean))]
        halves = [(m.high - m.low) / 2 for m in marks if math.isfinite(m.high - m.low)]
        reach = max(max(means) - min(means), 3 * statistics.median(halves or [0.0]))
        least, most = min(means) - reach, max(means) + reach
        ends = [
            min(max(end, least), most)
            for m in marks
            for end in (m.low, m.high)
            if math.isfinite(end)
        ]
        return Axis(Scale.around([*means, *ends], EDGE, WIDTH - EDGE), reference, label, floor)


def interval_cell(axis: Axis, marks: Sequence[Mark]) -> str:
    """The marks of one row, from top to bottom. Hidden from screen readers: the row has the numbers."""
    height, scale = ROW * len(marks) + 15, axis.scale
    grid = [
        line(scale(value), 0, scale(value), height, "grid")
        for value in ticks(scale.low, scale.high, 4)
    ]
    parts = [
        _noise(axis, height),
        *grid,
        line(scale(axis.reference), 0, scale(axis.reference), height, "zero"),
    ]
    for position, item in enumerate(marks):
        parts.append(_interval(scale, item, 7.5 + ROW * (position + 0.5)))
    return svg(WIDTH, height, parts)


def _noise(axis: Axis, height: float) -> str:
    if not axis.floor > 0:
        return ""
    left = max(axis.scale(axis.reference - axis.floor), 0)
    right = min(axis.scale(axis.reference + axis.floor), WIDTH)
    return f'<rect x="{left:.1f}" y="0" width="{right - left:.1f}" height="{height:.0f}" class="noise"/>'


def _interval(scale: Scale, item: Mark, y: float) -> str:
    if not math.isfinite(item.mean):
        return ""
    parts = []
    if math.isfinite(item.low) and math.isfinite(item.high):
        left, right = max(scale(item.low), 2.0), min(scale(item.high), WIDTH - 2.0)
        parts.append(line(left, y, right, y, f"bar {item.css}"))
        for end, wanted, inward in ((left, scale(item.low), 5), (right, scale(item.high), -5)):
            cut = abs(end - wanted) > 0.5
            path = (
                f"M{end + inward:.1f} {y - 4:.1f}L{end:.1f} {y:.1f}L{end + inward:.1f} {y + 4:.1f}"
                if cut
                else f"M{end:.1f} {y - 3.5:.1f}v7"
            )
            parts.append(f'<path d="{path}" class="bar {item.css}"/>')
    return "".join(parts) + mark(scale(item.mean), y, item.css)


def axis_cell(axis: Axis) -> str:
    """The axis itself: ticks, numbers and what they measure."""
    scale, marks = axis.scale, ticks(axis.scale.low, axis.scale.high, 4)
    parts = [line(EDGE / 2, 0.5, WIDTH - EDGE / 2, 0.5, "axis")]
    for value in marks:
        parts += [
            line(scale(value), 0, scale(value), 5, "axis"),
            text(scale(value), 18, tick_text(value, marks), "tick", "middle"),
        ]
    return svg(WIDTH, 40, [*parts, text(WIDTH / 2, 35, axis.label, "label", "middle")])
