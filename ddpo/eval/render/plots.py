"""Two plots as inline SVG with real axes: intervals of the gains, and the reward over training.

Colours come from the page's CSS variables, so both work in light and dark; shapes differ too, so nothing hangs on colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from ddpo.eval.render.words import estimate_text, number, split_title
from ddpo.eval.report import CurvePoint
from ddpo.eval.tables import Gain

__all__ = ["forest_plot", "reward_curve", "ticks"]

WIDTH = 460
MARGIN = 14


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _tick_text(value: float, values: Sequence[float]) -> str:
    step = abs(values[1] - values[0]) if len(values) > 1 else abs(value) or 1.0
    if step >= 1e5 or step < 1e-4:
        return f"{value:.0e}".replace("-", "−")
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}".replace("-", "−")


def _text(x: float, y: float, words: str, css: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>{body}</svg>'


def forest_plot(gains: Sequence[Gain], unit: str) -> str:
    """The gains of one reward with their 95 % intervals on a common axis, 0 marked.

    Args:
        gains: lines of one reward; those without a mean are told but not drawn.
        unit: of the reward, for the axis.
    """
    ends = [value for g in gains for value in (g.paired.gain.low, g.paired.gain.high, g.paired.gain.mean) if math.isfinite(value)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    span = (high - low) or 1.0
    low, high = low - 0.06 * span, high + 0.06 * span
    row, top = 46, 8
    bottom = top + row * len(gains)

    def x(value: float) -> float:
        return MARGIN + (value - low) / (high - low) * (WIDTH - 2 * MARGIN)

    marks = ticks(low, high, 7)
    parts: list[str] = []
    for position in range(len(gains)):  # below the words of each row, not through them
        upper, lower = top + row * position + 21, top + row * (position + 1)
        parts += [*(_line(x(mark), upper, x(mark), lower, "grid") for mark in marks), _line(x(0), upper, x(0), lower, "zero")]
    for position, gain in enumerate(gains):
        parts += _forest_row(gain, top + row * position, x)
    parts.append(_line(MARGIN, bottom, WIDTH - MARGIN, bottom, "axis"))
    for mark in marks:
        parts += [
            _line(x(mark), bottom, x(mark), bottom + 5, "axis"),
            _text(x(mark), bottom + 19, _tick_text(mark, marks), "tick", "middle"),
        ]
    label = "gain, tuned minus base" + (f" ({unit})" if unit else "")
    parts.append(_text(WIDTH / 2, bottom + 38, label, "label", "middle"))
    told = "; ".join(f"{split_title(g.split)} {estimate_text(g.paired.gain)}" for g in gains)
    return _svg(bottom + 46, f"Gains with 95 % intervals: {told}", parts)


def _forest_row(gain: Gain, top: float, x: Callable[[float], float]) -> list[str]:
    estimate, y = gain.paired.gain, top + 32
    css = "seen" if gain.role == "seen" else "heldout"
    parts = [
        _text(MARGIN, top + 16, split_title(gain.split), "name"),
        _text(WIDTH - MARGIN, top + 16, estimate_text(estimate), "value", "end"),
    ]
    if math.isfinite(estimate.low):
        left, right = x(estimate.low), x(estimate.high)
        parts += [
            _line(left, y, right, y, f"bar {css}"),
            _line(left, y - 4, left, y + 4, f"bar {css}"),
            _line(right, y - 4, right, y + 4, f"bar {css}"),
        ]
    if math.isfinite(estimate.mean):
        at = x(estimate.mean)
        shape = f'<circle cx="{at:.1f}" cy="{y}" r="5" class="mark {css}"/>'
        diamond = f'<path d="M{at:.1f} {y - 6.5}l6.5 6.5l-6.5 6.5l-6.5 -6.5z" class="mark {css}"/>'
        parts.append(shape if css == "seen" else diamond)
    return parts


def reward_curve(points: Sequence[CurvePoint], reward: str, unit: str) -> str:
    """Mean reward of each iteration's rollout with a band of ±1.96 standard errors; empty below two points."""
    known = [point for point in points if math.isfinite(point.mean)]
    if len(known) < 2:
        return ""
    half = [1.96 * point.se if math.isfinite(point.se) else 0.0 for point in known]
    low, high = min(p.mean - h for p, h in zip(known, half, strict=True)), max(p.mean + h for p, h in zip(known, half, strict=True))
    span = (high - low) or 1.0
    low, high = low - 0.04 * span, high + 0.04 * span
    left, right, top, bottom = 58.0, WIDTH - MARGIN, 12.0, 190.0
    first, last = known[0].iteration, known[-1].iteration

    def x(iteration: float) -> float:
        return left + (iteration - first) / (last - first) * (right - left)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    marks, steps = ticks(low, high), [t for t in ticks(first, last, 6) if t == int(t)]
    parts = [
        _line(left, y(mark), right, y(mark), "grid") + _text(left - 8, y(mark) + 4, _tick_text(mark, marks), "tick", "end")
        for mark in marks
    ]
    upper = [f"{x(p.iteration):.1f} {y(p.mean + h):.1f}" for p, h in zip(known, half, strict=True)]
    lower = [f"{x(p.iteration):.1f} {y(p.mean - h):.1f}" for p, h in zip(known, half, strict=True)]
    parts.append(f'<path d="M{"L".join(upper + lower[::-1])}z" class="band"/>')
    parts.append(f'<path d="M{"L".join(f"{x(p.iteration):.1f} {y(p.mean):.1f}" for p in known)}" class="curve"/>')
    parts += [_line(left, bottom, right, bottom, "axis"), _line(left, top, left, bottom, "axis")]
    for step in steps:
        parts += [_line(x(step), bottom, x(step), bottom + 5, "axis"), _text(x(step), bottom + 19, f"{step:.0f}", "tick", "middle")]
    parts.append(_text((left + right) / 2, bottom + 38, "training iteration", "label", "middle"))
    change = f"from {number(known[0].mean)} at iteration {first} to {number(known[-1].mean)} at {last}"
    title = f"{reward}{f' ({unit})' if unit else ''} over training: {change}"
    return _svg(bottom + 46, title, parts)
