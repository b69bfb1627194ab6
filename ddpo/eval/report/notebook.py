"""The report in a notebook: its sentence, images before and after, gains, and a link."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ddpo.errors import ConfigError, ImageError
from ddpo.eval.analysis.tables import Pair, matched_pairs
from ddpo.eval.generate.samples import read_samples
from ddpo.eval.report.frames import gains_frame
from ddpo.eval.report.gallery import choose_strip
from ddpo.eval.report.wording import end_text, mean_text, percent
from ddpo.images import load_image
from ddpo.thumbnails import SHOWN, strip_html

if TYPE_CHECKING:
    from PIL import Image

    from ddpo.eval.report.data import Report

__all__ = ["report_html"]

PAIRS: Final = SHOWN // 2


def report_html(report: Report) -> str:
    """The sentence, images, the assessment of each model, the gains, and a link to the report."""
    parts = [f"<p><strong>{escape(report.sentence)}</strong></p>", _strip(report)]
    parts += [
        f"<p><b>{escape(reading.model)}</b>, reward hacking: {escape(reading.grade)}. "
        f"{escape(reading.text)}</p>"
        for reading in report.readings
    ]
    columns = ["model", "split", "reward", "gain", "low", "high", "win_rate"]
    frame = gains_frame(report)
    if len(frame):
        shown = frame[columns].assign(
            gain=[mean_text(gain.paired.gain) for gain in report.gains],
            low=[end_text(gain.paired.gain, gain.paired.gain.low) for gain in report.gains],
            high=[end_text(gain.paired.gain, gain.paired.gain.high) for gain in report.gains],
            win_rate=[percent(gain.paired.wins.rate) for gain in report.gains],
        )
        parts.append(shown.to_html(index=False))
    if report.folder is not None:
        address = escape(_address(report.folder / "report.html"), quote=True)
        parts.append(f"<a href='{address}'>report.html</a>")
    return "".join(parts)


def _address(page: Path) -> str:
    """The address of a page; below the working folder relative to it, as notebooks resolve it."""
    absolute = page.absolute()
    here = Path.cwd()
    if absolute.is_relative_to(here):
        return quote(absolute.relative_to(here).as_posix())
    return absolute.as_uri()


def _strip(report: Report) -> str:
    """Pairs of images of the first model, before and after training; "" without images."""
    if report.folder is None or not report.compared:
        return ""
    try:
        rows = read_samples(report.folder / "samples.parquet")
    except ConfigError:  # the folder holds report.json alone, or was damaged
        return ""
    model = report.compared[0].name
    pairs = [pair for pair in matched_pairs(rows) if pair.model == model]
    chosen = choose_strip(pairs, [split.name for split in report.splits], PAIRS)
    shown = list(_shots(report.folder, chosen))
    if not shown:
        return ""
    return strip_html(
        [image for image, _ in shown], [text for _, text in shown], shown_captions=True
    )


def _shots(folder: Path, pairs: Sequence[Pair]) -> Iterator[tuple[Image.Image, str]]:
    """The images of each pair that can be read, with their captions."""
    for pair in pairs:
        if not pair.base_image or not pair.tuned_image:
            continue
        try:
            before = load_image(folder / pair.base_image)
            after = load_image(folder / pair.tuned_image)
        except ImageError:
            continue
        yield before, f"before: {pair.prompt}"
        yield after, f"after: {pair.prompt}"
