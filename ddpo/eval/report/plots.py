"""What plots are drawn with: round ticks, scales, and SVG elements whose colours come from the page's CSS variables.

Shapes differ too, so nothing hangs on colour alone: a disc is a list of training prompts, a diamond is a held-out list.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Scale", "line", "mark", "svg", "text", "tick_text", "ticks"]


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from values `low` … `high` to positions `start` … `end` in user units of the SVG."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The position of a value."""
        return self.start + (value - self.low) / ((self.high - self.low) or 1.0) * (
            self.end - self.start
        )

    @staticmethod
    def around(values: Sequence[float], start: float, end: float, margin: float = 0.06) -> Scale:
        """A scale over all finite values with a margin on both sides, a share of their range."""
        known = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(known), max(known)
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
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_text(value: float, values: Sequence[float]) -> str:
    """A tick's number with as many decimals as the step between `values` needs."""
    step = abs(values[1] - values[0]) if len(values) > 1 else abs(value) or 1.0
    if step >= 1e6 or step < 1e-4:
        return f"{value:.0e}".replace("-", "−")
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{decimals}f}".replace("-", "−").replace(",", "\N{NARROW NO-BREAK SPACE}")


def text(x: float, y: float, words: str, css: str = "", anchor: str = "start") -> str:
    """Words at a place."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(words)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def mark(x: float, y: float, css: str, size: float = 4.5) -> str:
    """A disc for "seen" and "trained", a square for "best-of", a diamond for the rest."""
    if css in ("seen", "trained"):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" class="mark {css}"/>'
    if css == "best-of":
        half = size - 0.5
        return f'<path d="M{x - half:.1f} {y - half:.1f}h{2 * half:.1f}v{2 * half:.1f}h{-2 * half:.1f}z" class="mark {css}"/>'
    half = size * 1.3
    return f'<path d="M{x:.1f} {y - half:.1f}l{half:.1f} {half:.1f}l-{half:.1f} {half:.1f}l-{half:.1f} -{half:.1f}z" class="mark {css}"/>'


def svg(width: float, height: float, parts: Sequence[str], told: str = "") -> str:
    """A picture of these elements: `told` in words to a screen reader, or hidden from it where a table says the same."""
    seen = f'role="img" aria-label="{escape(told)}"' if told else 'aria-hidden="true"'
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" {seen}>{"".join(parts)}</svg>'
