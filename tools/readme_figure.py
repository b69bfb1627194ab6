"""Draws the README's figure from evaluated runs: `python tools/readme_figure.py RUN [RUN …]`.

Writes `docs/figures/gains.svg`, the gain of each run's own reward with its 95 % interval on every split, and
`docs/figures/before-after.webp`, pictures from the same seeds before and after: the first picture of every few prompts, not chosen.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from ddpo.eval.models import BASE
from ddpo.eval.render.plots import ticks
from ddpo.eval.samples import read_samples
from ddpo.files import atomic_path, write_text
from ddpo.images import contact_sheet, load_image
from ddpo.prompts import load_prompts

SPLITS = {"animals": "seen animals", "unseen_animals": "unseen animals", "objects": "objects"}
PANEL, LEFT, TOP, ROW, GAP = 270, 118, 58, 30, 26  # pixels
SHOWN = 5  # pictures per split


def panel(report: dict[str, Any], left: int) -> list[str]:
    """One run: a dot and an interval per split, on an axis that begins at 0."""
    reward = trained_on(report)
    gains = {g["split"]: g for g in report["gains"] if g["reward"] == reward}
    unit = next(r["card"]["unit"] for r in report["rewards"] if r["id"] == reward).split(";")[0].split(" of ")[0]
    estimates = {split: gains[split]["paired"]["gain"] for split in SPLITS if split in gains}
    high = max(e["high"] for e in estimates.values()) * 1.12

    def x(value: float) -> float:
        return left + max(0.0, value) / high * (PANEL - 20)

    bottom = TOP + ROW * len(SPLITS)
    parts = [f'<text x="{left}" y="{TOP - 26}" class="name">{escape(reward)}</text>']
    parts.append(f'<text x="{left}" y="{TOP - 10}" class="small">gain over the base model, {escape(unit)}</text>')
    parts.append(f'<line x1="{left}" y1="{TOP}" x2="{left}" y2="{bottom}" class="axis"/>')
    for value in ticks(0.0, high / 1.12, 3):
        parts.append(f'<line x1="{x(value):.1f}" y1="{bottom}" x2="{x(value):.1f}" y2="{bottom + 4}" class="axis"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle" class="small">{value:g}</text>')
    for row, split in enumerate(SPLITS):
        if split in estimates:
            e, y = estimates[split], TOP + ROW * row + ROW / 2
            parts.append(f'<line x1="{x(e["low"]):.1f}" y1="{y}" x2="{x(e["high"]):.1f}" y2="{y}" class="interval"/>')
            parts.append(f'<circle cx="{x(e["mean"]):.1f}" cy="{y}" r="5" class="{"seen" if row == 0 else "heldout"}"/>')
    return parts


def gains_figure(reports: list[dict[str, Any]]) -> str:
    """The SVG of all runs, side by side."""
    width, height = LEFT + len(reports) * (PANEL + GAP), TOP + ROW * len(SPLITS) + 30
    style = (
        "text{font:13px system-ui,sans-serif;fill:#57606a}.name{font-weight:600;fill:#0969da}.small{font-size:11px}"
        ".axis{stroke:#8c959f}.interval{stroke:#57606a;stroke-width:2}.seen{fill:#8250df}.heldout{fill:#1a7f37}"
    )
    parts = [f'<text x="{LEFT - 10}" y="{TOP + ROW * i + ROW / 2 + 4}" text-anchor="end">{t}</text>' for i, t in enumerate(SPLITS.values())]
    for index, report in enumerate(reports):
        parts += panel(report, LEFT + index * (PANEL + GAP))
    title = "Gain of the trained reward on seen animals, unseen animals and objects, with 95 % intervals clustered by prompt"
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{title}</title><style>{style}</style>'
    return head + "".join(parts) + "</svg>\n"


def shown(split: str) -> list[str]:
    """The ids of every few prompts of a split."""
    prompts = load_prompts(split).prompts
    return [prompt.id for prompt in prompts[:: len(prompts) // SHOWN][:SHOWN]]


def trained_on(report: dict[str, Any]) -> str:
    """The reward of the one model of a report."""
    (model,) = (model for model in report["models"] if not model["history"])
    return str(model["trained_on"])


def strip(folder: Path, base: bool) -> list[Image.Image]:
    """The first picture of the prompts shown, by the base model or by the tuned one."""
    history = {m["name"] for m in json.loads((folder / "report.json").read_text(encoding="utf-8"))["models"] if m["history"]}
    rows = [row for row in read_samples(folder / "samples.parquet") if row.index == 0 and row.model not in history]
    files = {row.prompt_id: row.image for row in rows if (row.model == BASE) == base}
    return [load_image(folder / files[id]).resize((96, 96), Image.Resampling.LANCZOS) for split in SPLITS for id in shown(split)]


def main() -> None:
    """The command line."""
    runs = [Path(argument) for argument in sys.argv[1:]]
    if not runs:
        raise SystemExit(__doc__)
    folders = [sorted((run / "eval").glob("iteration-*"))[-1] for run in runs]
    reports = [json.loads((folder / "report.json").read_text(encoding="utf-8")) for folder in folders]
    figures = Path("docs/figures")
    write_text(figures / "gains.svg", gains_figure(reports))
    rows = strip(folders[0], base=True)
    for folder in folders:
        rows += strip(folder, base=False)
    with atomic_path(figures / "before-after.webp") as temporary:
        contact_sheet(rows, columns=SHOWN * len(SPLITS)).save(temporary, format="WEBP", quality=92)
    for report in reports:
        for gain in report["gains"]:
            e = gain["paired"]["gain"]
            print(f"{trained_on(report):18} {gain['split']:15} {gain['reward']:18} {e['mean']:+.4f} [{e['low']:+.4f}, {e['high']:+.4f}]")


if __name__ == "__main__":
    main()
