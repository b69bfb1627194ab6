"""SVG elements, linear scales and round ticks; colours come from the stylesheet of the page.

Marks differ in shape as well as in colour: a disc is a list of training prompts, a diamond a list
of held-out prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

__all__ = [
    "Scale",
    "circle",
    "line",
    "mark",
    "path",
    "polygon",
    "polyline",
    "svg",
    "text",
    "tick_text",
    "ticks",
]

_TEXT: Final = Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>')
_LINE: Final = Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>')
_CIRCLE: Final = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{}"/>')
_PATH: Final = Markup('<path d="{}" class="{}"/>')
_NAMED: Final = Markup('<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>')
_HIDDEN: Final = Markup('<svg viewBox="0 0 {:.0f} {:.0f}" aria-hidden="true">{}</svg>')


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from values `low` … `high` to positions `start` … `end` in SVG units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The position of a value."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + share * (self.end - self.start)

    @staticmethod
    def around(values: Sequence[float], start: float, end: float, margin: float = 0.06) -> Scale:
        """A scale over all finite values.

        Args:
            values: values that the scale must show; NaN and infinities are ignored.
            start: position of the lower end.
            end: position of the upper end.
            margin: room on both sides, as a share of the range of the values.
        """
        known = [value for value in values if math.isfinite(value)] or [0.0]
        low = min(known)
        high = max(known)
        span = (high - low) or abs(high) or 1.0
        return Scale(low - margin * span, high + margin * span, start, end)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_text(value: float, values: Sequence[float]) -> str:
    """A tick's number with as many decimals as the step between `values` needs."""
    if value == 0 and len(values) < 2:
        return "0"
    step = abs(values[1] - values[0]) if len(values) > 1 else abs(value)
    if step >= 1e6 or step < 1e-4:
        return "0" if value == 0 else f"{value:.0e}".replace("-", "−")
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{decimals}f}".replace("-", "−").replace(",", "\N{NARROW NO-BREAK SPACE}")


def text(x: float, y: float, words: str, css: str = "", anchor: str = "start") -> Markup:
    """Words at a position."""
    return _TEXT.format(x, y, css, anchor, words)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight line."""
    return _LINE.format(x1, y1, x2, y2, css)


def circle(x: float, y: float, radius: float, css: str) -> Markup:
    """A circle around a position."""
    return _CIRCLE.format(x, y, radius, css)


def path(commands: str, css: str) -> Markup:
    """A path of SVG commands such as `M0 0L10 10`."""
    return _PATH.format(commands, css)


def polyline(points: Sequence[tuple[float, float]], css: str) -> Markup:
    """Straight lines through the positions in their order."""
    return path(_lines_through(points), css)


def polygon(points: Sequence[tuple[float, float]], css: str) -> Markup:
    """The area whose corners are the positions in their order."""
    return path(f"{_lines_through(points)}z", css)


def _lines_through(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def mark(x: float, y: float, kind: str, size: float = 4.5) -> Markup:
    """The mark of an estimate.

    Args:
        x: position of its centre.
        y: position of its centre.
        kind: "seen" or "trained" for a disc, "best-of" for a square, else a diamond.
        size: radius of the disc; the other shapes look equally large.
    """
    css = f"mark {kind}"
    if kind in ("seen", "trained"):
        return circle(x, y, size, css)
    if kind == "best-of":
        half = size - 0.5
        side = 2 * half
        return path(f"M{x - half:.1f} {y - half:.1f}h{side:.1f}v{side:.1f}h{-side:.1f}z", css)
    half = size * 1.3
    corners = f"l{half:.1f} {half:.1f}l-{half:.1f} {half:.1f}l-{half:.1f} -{half:.1f}z"
    return path(f"M{x:.1f} {y - half:.1f}{corners}", css)


def svg(width: float, height: float, parts: Sequence[Markup], description: str = "") -> Markup:
    """An SVG image of these elements.

    Args:
        width: width in SVG units.
        height: height in SVG units.
        parts: elements in the order of painting.
        description: text for screen readers; "" hides the image, for a plot beside its numbers.
    """
    body = Markup("").join(parts)
    if description:
        return _NAMED.format(width, height, description, body)
    return _HIDDEN.format(width, height, body)
