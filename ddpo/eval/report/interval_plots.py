"""Plots of estimates with their intervals for the cells of a table, on one axis per column."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from ddpo.eval.report.svg import Scale, line, mark, path, svg, text, tick_text, ticks
from ddpo.text import shortened

__all__ = ["Axis", "Mark", "axis_plot", "interval_plot"]

WIDTH: Final = 200
EDGE: Final = 12
ROW: Final = 11  # height of each mark of one cell
TICKS: Final = (6, 5, 4, 3, 2)  # wanted numbers of ticks, of which the first with room is taken
DIGIT: Final = 7.0  # width of a digit of a tick
LABEL: Final = 30  # characters of the label that have room
_NOISE: Final = Markup('<rect x="{:.1f}" y="0" width="{:.1f}" height="{:.0f}" class="noise"/>')


@dataclass(frozen=True, slots=True)
class Mark:
    """An estimate on one prompt list."""

    mean: float
    low: float
    high: float
    kind: str  # "seen" or "heldout"


@dataclass(frozen=True, slots=True)
class Axis:
    """The common axis of a column."""

    scale: Scale
    reference: float  # value of no change
    label: str
    noise_floor: float = math.nan  # half width of the noise band around it; NaN if unknown

    @property
    def ticks(self) -> list[float]:
        """The round numbers of the axis, as many as have room for their digits."""
        values: list[float] = []
        for count in TICKS:
            values = ticks(self.scale.low, self.scale.high, count)
            if _has_room(self.scale, values):
                break
        return values

    @staticmethod
    def over(
        marks: Sequence[Mark], reference: float, label: str, noise_floor: float = math.nan
    ) -> Axis:
        """An axis for these marks; an interval far wider than the others is cut, with an arrow."""
        means = [reference, *(m.mean for m in marks if math.isfinite(m.mean))]
        halves = [(m.high - m.low) / 2 for m in marks if math.isfinite(m.high - m.low)]
        reach = max(max(means) - min(means), 3 * statistics.median(halves or [0.0]))
        lowest = min(means) - reach
        highest = max(means) + reach
        ends = [end for m in marks for end in (m.low, m.high) if math.isfinite(end)]
        shown = [min(max(end, lowest), highest) for end in ends]
        scale = Scale.around([*means, *shown], EDGE, WIDTH - EDGE)
        return Axis(scale, reference, label, noise_floor)


def interval_plot(axis: Axis, marks: Sequence[Mark]) -> Markup:
    """The marks of one row, from top to bottom; hidden from screen readers beside its numbers."""
    height = ROW * len(marks) + 15
    scale = axis.scale
    places = [scale(value) for value in axis.ticks]
    zero = scale(axis.reference)
    parts = [
        _noise_band(axis, height),
        *(line(place, 0, place, height, "grid") for place in places),
        line(zero, 0, zero, height, "zero"),
    ]
    for position, item in enumerate(marks):
        parts += _interval(scale, item, 7.5 + ROW * (position + 0.5))
    return svg(WIDTH, height, parts)


def _has_room(scale: Scale, values: Sequence[float]) -> bool:
    """True if the numbers of the ticks do not touch each other."""
    widths = [DIGIT * len(tick_text(value, values)) for value in values]
    gaps = [scale(after) - scale(before) for before, after in zip(values, values[1:], strict=False)]
    return all(
        gap >= (left + right) / 2 + DIGIT
        for gap, left, right in zip(gaps, widths, widths[1:], strict=False)
    )


def _noise_band(axis: Axis, height: float) -> Markup:
    if not axis.noise_floor > 0:
        return Markup("")
    left = max(axis.scale(axis.reference - axis.noise_floor), 0)
    right = min(axis.scale(axis.reference + axis.noise_floor), WIDTH)
    return _NOISE.format(left, right - left, height)


def _interval(scale: Scale, item: Mark, y: float) -> list[Markup]:
    if not math.isfinite(item.mean):
        return []
    parts = []
    if math.isfinite(item.low) and math.isfinite(item.high):
        css = f"bar {item.kind}"
        left = max(scale(item.low), 2.0)
        right = min(scale(item.high), WIDTH - 2.0)
        parts.append(line(left, y, right, y, css))
        for shown, end, inward in ((left, scale(item.low), 5), (right, scale(item.high), -5)):
            is_cut = abs(shown - end) > 0.5
            parts.append(path(_arrow(shown, y, inward) if is_cut else _cap(shown, y), css))
    return [*parts, mark(scale(item.mean), y, item.kind)]


def _arrow(x: float, y: float, inward: float) -> str:
    """Path commands of the end of an interval that continues outside of the plot."""
    back = x + inward
    return f"M{back:.1f} {y - 4:.1f}L{x:.1f} {y:.1f}L{back:.1f} {y + 4:.1f}"


def _cap(x: float, y: float) -> str:
    """Path commands of the end of an interval."""
    return f"M{x:.1f} {y - 3.5:.1f}v7"


def axis_plot(axis: Axis) -> Markup:
    """The axis with ticks, numbers and label."""
    scale = axis.scale
    values = axis.ticks
    parts = [line(EDGE / 2, 0.5, WIDTH - EDGE / 2, 0.5, "axis")]
    for value in values:
        parts += [
            line(scale(value), 0, scale(value), 5, "axis"),
            text(scale(value), 18, tick_text(value, values), "tick", "middle"),
        ]
    label = shortened(axis.label, LABEL)
    return svg(WIDTH, 40, [*parts, text(WIDTH / 2, 35, label, "label", "middle")])
