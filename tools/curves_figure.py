"""Curves with intervals as an SVG: one panel per reward, gain against reward queries. Used by `reproduce.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from ddpo.eval.report.svg import ticks

__all__ = ["Curve", "curves_figure"]

COLORS: Final = ("#8250df", "#0969da", "#bc4c00", "#1a7f37")
WIDTH, HEIGHT, GAP, LEFT, TOP = 290, 210, 62, 62, 34  # pixels
LEGEND: Final = 270  # pixels of an entry
STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}.name{font-weight:600;font-size:13px}.small{font-size:11px}"
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
        x, y = LEFT + (place % 2) * LEGEND, TOP + HEIGHT + 52 + 18 * (place // 2)
        parts.append(
            f'<line x1="{x}" x2="{x + 22}" y1="{y - 4}" y2="{y - 4}" stroke="{colors[name]}" stroke-width="2.5"/>'
        )
        parts.append(f'<text x="{x + 28}" y="{y}">{escape(name)}</text>')
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"><style>{STYLE}</style>\n{body}\n</svg>\n'


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
    low, high, last = (
        min(0.0, *bounds),
        max(0.0, *bounds),
        max(curve.queries[-1] for curve in curves),
    )

    def at(queries: float, value: float) -> str:
        return f"{left + queries / last * WIDTH:.1f},{TOP + (high - value) / (high - low or 1) * HEIGHT:.1f}"

    for value in ticks(low, high, 4):
        if low <= value <= high:
            y = at(0, value).split(",")[1]
            parts.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y}" y2="{y}" class="grid"/>')
            parts.append(
                f'<text x="{left - 6}" y="{y}" dy="4" text-anchor="end" class="small">{value:g}</text>'
            )
    for queries in curves[0].queries:
        x = at(queries, 0).split(",")[0]
        parts.append(
            f'<text x="{x}" y="{TOP + HEIGHT + 16}" text-anchor="middle" class="small">{queries:,}</text>'
        )
    parts.append(
        f'<text x="{left + WIDTH / 2}" y="{TOP + HEIGHT + 32}" text-anchor="middle" class="small">reward queries</text>'
    )
    parts.append(f'<rect x="{left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" class="axis"/>')
    for curve in curves:
        known = [
            (q, m, 0.0 if math.isnan(h) else h)
            for q, (m, h) in zip(curve.queries, curve.points, strict=True)
        ]
        outline = [at(q, m + h) for q, m, h in known] + [
            at(q, m - h) for q, m, h in reversed(known)
        ]
        parts.append(
            f'<polygon points="{" ".join(outline)}" fill="{colors[curve.name]}" fill-opacity=".15"/>'
        )
        line = " ".join(at(q, m) for q, m, _ in known)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colors[curve.name]}" stroke-width="2.5"/>'
        )
    return parts
