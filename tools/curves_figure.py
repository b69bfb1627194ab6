"""Curves with intervals as an SVG for `reproduce.py`: gain against reward queries, by reward."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from ddpo.eval.report.svg import ticks

__all__ = ["Curve", "curves_figure"]

COLORS: Final = ("#8250df", "#0969da", "#bc4c00", "#1a7f37")
WIDTH: Final = 290  # pixels of a panel
HEIGHT: Final = 210
GAP: Final = 62
LEFT: Final = 62
TOP: Final = 34
LEGEND: Final = 270  # pixels of a legend entry
STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}"
    ".name{font-weight:600;font-size:13px}.small{font-size:11px}"
    ".axis{stroke:#8c959f;fill:none}.grid{stroke:#8c959f;stroke-opacity:.25}"
)


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a panel."""

    name: str
    queries: Sequence[int]
    points: Sequence[tuple[float, float]]  # mean and half width of the interval (NaN: one seed)


def curves_figure(panels: Mapping[str, Sequence[Curve]]) -> str:
    """The SVG: a panel for each name, side by side, and a legend below."""
    names = list(dict.fromkeys(curve.name for curves in panels.values() for curve in curves))
    colors = {name: COLORS[place % len(COLORS)] for place, name in enumerate(names)}
    width = LEFT + max(len(panels) * (WIDTH + GAP), 2 * LEGEND)
    height = TOP + HEIGHT + 50 + 18 * math.ceil(len(names) / 2)
    parts = [
        part
        for place, (title, curves) in enumerate(panels.items())
        for part in _panel(title, curves, colors, place)
    ]
    for place, name in enumerate(names):
        x = LEFT + (place % 2) * LEGEND
        y = TOP + HEIGHT + 52 + 18 * (place // 2)
        stroke = f'stroke="{colors[name]}" stroke-width="2.5"'
        parts.append(f'<line x1="{x}" x2="{x + 22}" y1="{y - 4}" y2="{y - 4}" {stroke}/>')
        parts.append(f'<text x="{x + 28}" y="{y}">{escape(name)}</text>')
    body = "\n".join(parts)
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>'
    return f"{head}\n{body}\n</svg>\n"


def _panel(title: str, curves: Sequence[Curve], colors: Mapping[str, str], place: int) -> list[str]:
    left = LEFT + place * (WIDTH + GAP)
    parts = [f'<text x="{left}" y="{TOP - 14}" class="name">{escape(title)}</text>']
    if not curves:
        return parts
    bounds = [
        mean + side * (0 if math.isnan(half) else half)
        for curve in curves
        for mean, half in curve.points
        for side in (-1, 1)
    ]
    low = min(0.0, *bounds)
    high = max(0.0, *bounds)
    last = max(curve.queries[-1] for curve in curves)

    def at(queries: float, value: float) -> str:
        x = left + queries / last * WIDTH
        y = TOP + (high - value) / (high - low or 1) * HEIGHT
        return f"{x:.1f},{y:.1f}"

    for value in ticks(low, high, 4):
        if low <= value <= high:
            y = at(0, value).split(",")[1]
            parts.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y}" y2="{y}" class="grid"/>')
            anchor = f'x="{left - 6}" y="{y}" dy="4" text-anchor="end"'
            parts.append(f'<text {anchor} class="small">{value:g}</text>')
    for queries in curves[0].queries:
        x = at(queries, 0).split(",")[0]
        parts.append(_label(x, TOP + HEIGHT + 16, f"{queries:,}"))
    parts.append(_label(left + WIDTH / 2, TOP + HEIGHT + 32, "reward queries"))
    parts.append(f'<rect x="{left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" class="axis"/>')
    for curve in curves:
        parts += _line(curve, colors[curve.name], at)
    return parts


def _label(x: float | str, y: float, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="middle" class="small">{text}</text>'


def _line(curve: Curve, color: str, at: Callable[[float, float], str]) -> list[str]:
    """A curve and the area of its interval."""
    known = [
        (queries, mean, 0.0 if math.isnan(half) else half)
        for queries, (mean, half) in zip(curve.queries, curve.points, strict=True)
    ]
    upper = [at(queries, mean + half) for queries, mean, half in known]
    lower = [at(queries, mean - half) for queries, mean, half in reversed(known)]
    line = " ".join(at(queries, mean) for queries, mean, _ in known)
    return [
        f'<polygon points="{" ".join(upper + lower)}" fill="{color}" fill-opacity=".15"/>',
        f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2.5"/>',
    ]
