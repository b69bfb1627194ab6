"""Plots of training: gains of a run's checkpoints, and the mean reward of its rollouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from ddpo.eval.inputs.runs import CurvePoint
from ddpo.eval.report.svg import (
    Scale,
    circle,
    line,
    mark,
    polygon,
    polyline,
    svg,
    text,
    tick_text,
    ticks,
)
from ddpo.eval.report.wording import estimate_text, number, with_unit
from ddpo.stats.paired import Estimate

__all__ = ["Panel", "PlotPoint", "RootScale", "Series", "panel_plot", "reward_curve"]

WIDTH: Final = 440
HEIGHT: Final = 250
TICK_ROOM: Final = 48.0
LEFT: Final = 58.0
START: Final = LEFT + 14.0  # x of 0 in a panel, where a ring has room beside the axis
RIGHT: Final = 426.0
TOP: Final = 48.0
BOTTOM: Final = 204.0


@dataclass(frozen=True, slots=True)
class PlotPoint:
    """An estimate at a position of the x axis."""

    x: float
    estimate: Estimate
    name: str  # such as "iteration 10" or "best of 4"


@dataclass(frozen=True, slots=True)
class Series:
    """Estimates that a line joins, in rising order of x."""

    kind: str  # "trained", "heldout" or "best-of"
    points: Sequence[PlotPoint]


@dataclass(frozen=True, slots=True)
class Panel:
    """The frame of one plot of a run history."""

    x_label: str
    y_label: str
    description: str  # title for screen readers
    best: PlotPoint | None = None  # where the reward was best; the name is shown
    onset: PlotPoint | None = None  # first point significantly below the best
    is_root: bool = False  # square-root x axis, on which the few queries of best-of-n stand apart


class RootScale(Scale):
    """A map of √value from 0 to `high`."""

    __slots__ = ()

    def __call__(self, value: float) -> float:
        """The position of a value, at least 0."""
        return self.start + math.sqrt(max(value, 0.0) / self.high) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """0 and the round numbers (1, 2 or 5 times a power of ten) with room for their digits."""
        top = math.floor(math.log10(self.high))
        powers = [10.0**power for power in range(top, top - 4, -1)]
        kept: list[float] = []
        last = math.inf
        for value in (factor * power for power in powers for factor in (5, 2, 1)):
            place = self(value)
            if value <= self.high and place - self.start >= TICK_ROOM and last - place >= TICK_ROOM:
                kept.append(value)
                last = place
        return [0.0, *reversed(kept)]


def panel_plot(series: Sequence[Series], panel: Panel) -> Markup:
    """The series with vertical 95 % intervals on common axes, with a line at 0, the base model."""
    points = [point for one in series for point in one.points]
    ends = [end for p in points for end in (p.estimate.low, p.estimate.high, p.estimate.mean)]
    y = Scale.around([0.0, *ends], BOTTOM, TOP, 0.1)
    furthest = max((point.x for point in points), default=1.0) or 1.0
    x: Scale
    if panel.is_root:
        x = root = RootScale(0.0, furthest * 1.08, START, RIGHT)
        values = root.ticks()
    else:
        x = Scale(0.0, furthest * 1.04, START, RIGHT)
        values = ticks(0.0, x.high, 5)
    parts = _axes(x, y, values, panel.x_label, panel.y_label)
    parts.append(line(LEFT, y(0), RIGHT, y(0), "zero"))
    for one in series:
        parts += _series(one, x, y)
    if panel.onset is not None:
        parts += _onset(panel.onset, x)
    if panel.best is not None:
        parts += _best(panel.best, x, y)
    numbers = "; ".join(f"{p.name} {estimate_text(p.estimate)} at {number(p.x)}" for p in points)
    return svg(WIDTH, HEIGHT, parts, f"{panel.description}: {numbers}")


def _onset(onset: PlotPoint, x: Scale) -> list[Markup]:
    place = x(onset.x)
    return [
        line(place, TOP - 17, place, BOTTOM, "onset"),
        _note(place, TOP - 20, onset.name, "note strong"),
    ]


def _best(best: PlotPoint, x: Scale, y: Scale) -> list[Markup]:
    estimate = best.estimate
    above = y(estimate.high) - 6 if math.isfinite(estimate.high) else BOTTOM
    top = min(above, y(estimate.mean) - 13)
    return [
        circle(x(best.x), y(estimate.mean), 9, "ring"),
        _note(x(best.x), max(top, TOP - 5), best.name, "note"),
    ]


def _note(x: float, y: float, words: str, css: str) -> Markup:
    """Words above a position, kept inside the plot."""
    if x < LEFT + 60:
        return text(max(x - 9, LEFT + 4), y, words, css, "start")
    if x > RIGHT - 60:
        return text(min(x + 8, RIGHT), y, words, css, "end")
    return text(x, y, words, css, "middle")


def _series(series: Series, x: Scale, y: Scale) -> list[Markup]:
    known = [p for p in series.points if math.isfinite(p.x) and math.isfinite(p.estimate.mean)]
    parts = []
    if len(known) > 1:
        places = [(x(point.x), y(point.estimate.mean)) for point in known]
        parts.append(polyline(places, f"run {series.kind}"))
    for point in known:
        estimate = point.estimate
        place = x(point.x)
        if math.isfinite(estimate.low) and estimate.high > estimate.low:
            css = f"bar {series.kind}"
            parts.append(line(place, y(estimate.low), place, y(estimate.high), css))
        parts.append(mark(place, y(estimate.mean), series.kind, 4.0))
    return parts


def _axes(x: Scale, y: Scale, x_ticks: Sequence[float], x_label: str, y_label: str) -> list[Markup]:
    parts = []
    y_ticks = ticks(y.low, y.high, 7)
    for value in y_ticks:
        parts += [
            line(LEFT, y(value), RIGHT, y(value), "grid"),
            text(LEFT - 8, y(value) + 4, tick_text(value, y_ticks), "tick", "end"),
        ]
    parts += [line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"), line(LEFT, TOP, LEFT, BOTTOM, "axis")]
    for value in x_ticks:
        parts += [
            line(x(value), BOTTOM, x(value), BOTTOM + 5, "axis"),
            text(x(value), BOTTOM + 19, tick_text(value, x_ticks[-2:]), "tick", "middle"),
        ]
    return [
        *parts,
        text((LEFT + RIGHT) / 2, BOTTOM + 39, x_label, "label", "middle"),
        text(4, 13, y_label, "label"),
    ]


def reward_curve(points: Sequence[CurvePoint], reward: str, unit: str) -> Markup:
    """Mean reward of each rollout with a band of ±1.96 standard errors; empty below two points."""
    known = [point for point in points if math.isfinite(point.mean)]
    if len(known) < 2:
        return Markup("")
    halves = [1.96 * point.se if math.isfinite(point.se) else 0.0 for point in known]
    upper = [point.mean + half for point, half in zip(known, halves, strict=True)]
    lower = [point.mean - half for point, half in zip(known, halves, strict=True)]
    y = Scale.around([*upper, *lower], BOTTOM, TOP)
    x = Scale(min(0.0, known[0].iteration), known[-1].iteration, LEFT, RIGHT)
    across = [x(point.iteration) for point in known]
    edge = [(place, y(value)) for place, value in zip(across, upper, strict=True)]
    edge += [(place, y(value)) for place, value in zip(across, lower, strict=True)][::-1]
    means = [(place, y(point.mean)) for place, point in zip(across, known, strict=True)]
    iterations = [value for value in ticks(x.low, x.high, 6) if value == int(value)]
    title = with_unit(reward, unit)
    parts = [
        *_axes(x, y, iterations, "training iteration", title),
        polygon(edge, "band"),
        polyline(means, "run trained"),
    ]
    first = known[0]
    last = known[-1]
    start = f"from {number(first.mean)} at iteration {first.iteration}"
    end = f"to {number(last.mean)} at {last.iteration}"
    return svg(WIDTH, HEIGHT, parts, f"{title} over training: {start} {end}")
