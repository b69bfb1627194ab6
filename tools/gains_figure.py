"""Two figures of an evaluation for `generalisation.py`: gains with intervals, and images."""

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

__all__ = ["SPLITS", "gains_figure", "image_rows"]

SPLITS: Final = {
    "animals": "seen animals",
    "unseen_animals": "unseen animals",
    "objects": "objects",
}
PANEL: Final = 270  # pixels
LEFT: Final = 118
TOP: Final = 58
ROW: Final = 30
GAP: Final = 26
STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#57606a}"
    ".name{font-weight:600;fill:#0969da}.small{font-size:11px}"
    ".axis{stroke:#8c959f}.interval{stroke:#57606a;stroke-width:2}"
    ".seen{fill:#8250df}.heldout{fill:#1a7f37}"
)
SHOWN: Final = 96  # pixels, side of an image


def gains_figure(report: Report) -> str:
    """The gain of each model's own reward on each split, in panels side by side, as an SVG."""
    models = report.compared
    width = LEFT + len(models) * (PANEL + GAP)
    height = TOP + ROW * len(SPLITS) + 30
    parts = [
        f'<text x="{LEFT - 10}" y="{TOP + ROW * i + ROW / 2 + 4}" text-anchor="end">{t}</text>'
        for i, t in enumerate(SPLITS.values())
    ]
    for index, model in enumerate(models):
        parts += _panel(report, model.name, model.trained_on, LEFT + index * (PANEL + GAP))
    title = (
        "Gain of the trained reward on seen animals, unseen animals and objects, "
        "with 95 % intervals clustered by prompt"
    )
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    head += f"<title>{title}</title><style>{STYLE}</style>"
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
    subtitle = f"gain over the base model, {escape(unit)}"
    parts.append(f'<text x="{left}" y="{TOP - 10}" class="small">{subtitle}</text>')
    parts.append(f'<line x1="{left}" y1="{TOP}" x2="{left}" y2="{bottom}" class="axis"/>')
    for value in ticks(0.0, largest, 3):
        at = f"{x(value):.1f}"
        line = f'x1="{at}" y1="{bottom}" x2="{at}" y2="{bottom + 4}"'
        parts.append(f'<line {line} class="axis"/>')
        label = f'x="{at}" y="{bottom + 18}" text-anchor="middle"'
        parts.append(f'<text {label} class="small">{value:g}</text>')
    for row, split in enumerate(SPLITS):
        if (one := estimates.get(split)) is not None:
            y = TOP + ROW * row + ROW / 2
            line = f'x1="{x(one.low):.1f}" y1="{y}" x2="{x(one.high):.1f}" y2="{y}"'
            parts.append(f'<line {line} class="interval"/>')
            kind = "seen" if row == 0 else "heldout"
            parts.append(f'<circle cx="{x(one.mean):.1f}" cy="{y}" r="5" class="{kind}"/>')
    return parts


def image_rows(
    folder: Path, models: Sequence[str], splits: Sequence[str], each: int
) -> Image.Image:
    """A contact sheet with a row per model: the first image of every few prompts, none chosen.

    Args:
        folder: Folder of the evaluation.
        models: Names of the models, "base" among them.
        splits: Names of built-in prompt lists.
        each: Number of prompts of each list.
    """
    files = {
        (row.model, row.prompt_id): row.image
        for row in read_samples(folder / "samples.parquet")
        if row.index == 0
    }
    prompts = [prompt for split in splits for prompt in _every_few(split, each)]
    images = [load_image(folder / files[model, prompt]) for model in models for prompt in prompts]
    small = [image.resize((SHOWN, SHOWN), Image.Resampling.LANCZOS) for image in images]
    return contact_sheet(small, columns=len(prompts))


def _every_few(split: str, count: int) -> list[str]:
    prompts = load_prompts(split).prompts
    return [prompt.id for prompt in prompts[:: len(prompts) // count][:count]]
