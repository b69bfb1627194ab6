"""Plots of training: a reward against KL or reward queries, checkpoint by checkpoint, and the reward of every rollout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ddpo.eval.inputs.runs import CurvePoint
from ddpo.eval.report.plots import Scale, line, mark, svg, text, tick_text, ticks
from ddpo.eval.report.wording import estimate_text, number
from ddpo.stats.paired import Estimate

__all__ = ["Panel", "Path", "panel", "reward_curve"]

WIDTH: Final = 440
TICK_ROOM: Final = 48.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 426.0, 34.0, 190.0


@dataclass(frozen=True, slots=True)
class Path:
    """Estimates along an x axis, joined by a line, in rising order of x."""

    css: str  # "trained", "heldout" or "best-of"
    points: Sequence[tuple[float, Estimate, str]]  # x, estimate, what it is called


@dataclass(frozen=True, slots=True)
class Panel:
    """What one panel shows beside its paths: where the reward was best and from where on it was below that (None: nowhere)."""

    x_label: str
    y_label: str
    told: str  # the title in words
    best: tuple[float, Estimate, str] | None = None  # x, what it was there, words
    onset: tuple[float, str] | None = None  # x, words
    root: bool = (
        False  # a square-root scale, on which best-of-n with its few queries can be told apart
    )


class RootScale(Scale):
    """A map of √value."""

    __slots__ = ()

    def __call__(self, value: float) -> float:
        """The position of a value, at least 0."""
        return self.start + math.sqrt(max(value, 0.0) / self.high) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """0 and the round numbers (1, 2 or 5 times a power of ten) that lie far enough apart for their digits."""
        top = math.floor(math.log10(self.high))
        kept: list[float] = []
        for value in sorted(
            (factor * 10.0**power for power in range(top - 3, top + 1) for factor in (1, 2, 5)),
            reverse=True,
        ):
            if (
                value <= self.high
                and self(value) - LEFT >= TICK_ROOM
                and (not kept or self(kept[-1]) - self(value) >= TICK_ROOM)
            ):
                kept.append(value)
        return [0.0, *reversed(kept)]


def panel(paths: Sequence[Path], shown: Panel) -> str:
    """The paths with vertical 95 % intervals on common axes, the base model's 0 marked."""
    estimates = [estimate for path in paths for _, estimate, _ in path.points]
    y = Scale.around(
        [0.0, *(end for e in estimates for end in (e.low, e.high, e.mean))], BOTTOM, TOP, 0.1
    )
    furthest = max([x for path in paths for x, _, _ in path.points], default=1.0) or 1.0
    x = (
        RootScale(0.0, furthest * 1.08, LEFT, RIGHT)
        if shown.root
        else Scale(0.0, furthest * 1.04, LEFT, RIGHT)
    )
    across = x.ticks() if isinstance(x, RootScale) else ticks(0.0, x.high, 5)
    parts = [
        *_axes(x, y, across, shown.x_label, shown.y_label),
        line(LEFT, y(0), RIGHT, y(0), "zero"),
    ]
    for path in paths:
        parts += _path(path, x, y)
    if shown.onset is not None:
        at, words = shown.onset
        parts += [
            line(x(at), TOP - 6, x(at), BOTTOM, "onset"),
            _beside(x(at), TOP - 9, words, "note strong"),
        ]
    if shown.best is not None:
        at, value, words = shown.best
        top = min(y(value.high) - 6 if math.isfinite(value.high) else BOTTOM, y(value.mean) - 13)
        ring = f'<circle cx="{x(at):.1f}" cy="{y(value.mean):.1f}" r="9" class="ring"/>'
        parts += [ring, _beside(x(at), max(top, TOP - 2), words, "note")]
    told = "; ".join(
        f"{name} {estimate_text(e)} at {number(at)}"
        for path in paths
        for at, e, name in path.points
    )
    return svg(WIDTH, BOTTOM + 46, parts, f"{shown.told}: {told}")


def _beside(x: float, y: float, words: str, css: str) -> str:
    """Words above a place, kept inside the plot."""
    anchor = "start" if x < LEFT + 60 else "end" if x > RIGHT - 60 else "middle"
    return text(
        max(x, LEFT + 4) if anchor == "start" else min(x + 8, RIGHT) if anchor == "end" else x,
        y,
        words,
        css,
        anchor,
    )


def _path(path: Path, x: Scale, y: Scale) -> list[str]:
    known = [(at, e) for at, e, _ in path.points if math.isfinite(at) and math.isfinite(e.mean)]
    parts = (
        [
            f'<path d="M{"L".join(f"{x(at):.1f} {y(e.mean):.1f}" for at, e in known)}" class="run {path.css}"/>'
        ]
        if len(known) > 1
        else []
    )
    for at, estimate in known:
        if math.isfinite(estimate.low) and estimate.high > estimate.low:
            parts.append(line(x(at), y(estimate.low), x(at), y(estimate.high), f"bar {path.css}"))
        parts.append(mark(x(at), y(estimate.mean), path.css, 4.0))
    return parts


def _axes(x: Scale, y: Scale, across: Sequence[float], x_label: str, y_label: str) -> list[str]:
    up = ticks(y.low, y.high, 5)
    parts = [
        line(LEFT, y(v), RIGHT, y(v), "grid")
        + text(LEFT - 8, y(v) + 4, tick_text(v, up), "tick", "end")
        for v in up
    ]
    parts += [line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"), line(LEFT, TOP, LEFT, BOTTOM, "axis")]
    for value in across:
        parts += [
            line(x(value), BOTTOM, x(value), BOTTOM + 5, "axis"),
            text(x(value), BOTTOM + 19, tick_text(value, across[-2:]), "tick", "middle"),
        ]
    return [
        *parts,
        text((LEFT + RIGHT) / 2, BOTTOM + 39, x_label, "label", "middle"),
        text(4, 13, y_label, "label"),
    ]


def reward_curve(points: Sequence[CurvePoint], reward: str, unit: str) -> str:
    """Mean reward of each iteration's rollout with a band of ±1.96 standard errors; empty below two points."""
    known = [point for point in points if math.isfinite(point.mean)]
    if len(known) < 2:
        return ""
    half = [1.96 * point.se if math.isfinite(point.se) else 0.0 for point in known]
    upper, lower = (
        [p.mean + h for p, h in zip(known, half, strict=True)],
        [p.mean - h for p, h in zip(known, half, strict=True)],
    )
    y = Scale.around([*upper, *lower], BOTTOM, TOP)
    x = Scale(min(0.0, known[0].iteration), known[-1].iteration, LEFT, RIGHT)
    edge = [(p.iteration, v) for p, v in zip(known, upper, strict=True)] + [
        (p.iteration, v) for p, v in zip(known, lower, strict=True)
    ][::-1]
    parts = [
        *_axes(
            x,
            y,
            [mark for mark in ticks(x.low, x.high, 6) if mark == int(mark)],
            "training iteration",
            f"{reward}{f' ({unit})' if unit else ''}",
        ),
        f'<path d="M{"L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in edge)}z" class="band"/>',
        f'<path d="M{"L".join(f"{x(p.iteration):.1f} {y(p.mean):.1f}" for p in known)}" class="run trained"/>',
    ]
    first, last = known[0], known[-1]
    change = f"from {number(first.mean)} at iteration {first.iteration} to {number(last.mean)} at {last.iteration}"
    return svg(
        WIDTH, BOTTOM + 46, parts, f"{reward}{f' ({unit})' if unit else ''} over training: {change}"
    )
