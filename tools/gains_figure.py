"""Two figures of an evaluation, for `generalisation.py`: gains of several models with intervals as an SVG, pictures of the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from PIL import Image

from ddpo.eval.generate.samples import read_samples
from ddpo.eval.report.data import Report
from ddpo.eval.report.svg import ticks
from ddpo.images import contact_sheet, load_image
from ddpo.prompts import load_prompts

__all__ = ["SPLITS", "gains_figure", "picture_rows"]

SPLITS: Final = {
    "animals": "seen animals",
    "unseen_animals": "unseen animals",
    "objects": "objects",
}
PANEL, LEFT, TOP, ROW, GAP = 270, 118, 58, 30, 26  # pixels
STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#57606a}.name{font-weight:600;fill:#0969da}.small{font-size:11px}"
    ".axis{stroke:#8c959f}.interval{stroke:#57606a;stroke-width:2}.seen{fill:#8250df}.heldout{fill:#1a7f37}"
)
SHOWN: Final = 96  # pixels, side of a picture


def gains_figure(report: Report) -> str:
    """A panel per model, side by side: the gain of its own reward on each split, on an axis that begins at 0."""
    models = report.compared
    width, height = LEFT + len(models) * (PANEL + GAP), TOP + ROW * len(SPLITS) + 30
    parts = [
        f'<text x="{LEFT - 10}" y="{TOP + ROW * i + ROW / 2 + 4}" text-anchor="end">{t}</text>'
        for i, t in enumerate(SPLITS.values())
    ]
    for index, model in enumerate(models):
        parts += _panel(report, model.name, model.trained_on, LEFT + index * (PANEL + GAP))
    title = "Gain of the trained reward on seen animals, unseen animals and objects, with 95 % intervals clustered by prompt"
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{title}</title><style>{STYLE}</style>'
    return head + "".join(parts) + "</svg>\n"


def _panel(report: Report, model: str, reward: str, left: int) -> list[str]:
    estimates = {
        gain.split: gain.paired.gain
        for gain in report.gains
        if gain.model == model and gain.reward == reward
    }
    unit = (
        next(str(one.card["unit"]) for one in report.rewards if one.id == reward)
        .split(";")[0]
        .split(" of ")[0]
    )
    largest = max(one.high for one in estimates.values())

    def x(value: float) -> float:
        return left + max(0.0, value) / (1.12 * largest) * (PANEL - 20)

    bottom = TOP + ROW * len(SPLITS)
    parts = [f'<text x="{left}" y="{TOP - 26}" class="name">{escape(reward)}</text>']
    parts.append(
        f'<text x="{left}" y="{TOP - 10}" class="small">gain over the base model, {escape(unit)}</text>'
    )
    parts.append(f'<line x1="{left}" y1="{TOP}" x2="{left}" y2="{bottom}" class="axis"/>')
    for value in ticks(0.0, largest, 3):
        parts.append(
            f'<line x1="{x(value):.1f}" y1="{bottom}" x2="{x(value):.1f}" y2="{bottom + 4}" class="axis"/>'
        )
        parts.append(
            f'<text x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle" class="small">{value:g}</text>'
        )
    for row, split in enumerate(SPLITS):
        if (one := estimates.get(split)) is not None:
            y = TOP + ROW * row + ROW / 2
            parts.append(
                f'<line x1="{x(one.low):.1f}" y1="{y}" x2="{x(one.high):.1f}" y2="{y}" class="interval"/>'
            )
            parts.append(
                f'<circle cx="{x(one.mean):.1f}" cy="{y}" r="5" class="{"seen" if row == 0 else "heldout"}"/>'
            )
    return parts


def picture_rows(
    folder: Path, models: Sequence[str], splits: Sequence[str], each: int
) -> Image.Image:
    """A row per model: the first picture of every few prompts of each split, none chosen.

    Args:
        folder: of the evaluation.
        models: their names, "base" too.
        splits: built-in lists.
        each: prompts of each list.
    """
    files = {
        (row.model, row.prompt_id): row.image
        for row in read_samples(folder / "samples.parquet")
        if row.index == 0
    }
    prompts = [prompt for split in splits for prompt in _every_few(split, each)]
    pictures = [load_image(folder / files[model, prompt]) for model in models for prompt in prompts]
    return contact_sheet(
        [picture.resize((SHOWN, SHOWN), Image.Resampling.LANCZOS) for picture in pictures],
        columns=len(prompts),
    )


def _every_few(split: str, count: int) -> list[str]:
    prompts = load_prompts(split).prompts
    return [prompt.id for prompt in prompts[:: len(prompts) // count][:count]]
