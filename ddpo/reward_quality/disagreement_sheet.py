"""A contact sheet of the images on which two rewards differ most, each with both ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from ddpo.errors import ImageError
from ddpo.images import contact_sheet, load_image, thumbnail
from ddpo.inputs.input_image import InputImage
from ddpo.reward_quality.agreement import Disagreement
from ddpo.reward_quality.comparison import Comparison
from ddpo.rewards.image_files.sheet import embedded_images

__all__ = ["draw_disagreements"]

SIDE: Final = 224  # of a thumbnail, pixels
LINE: Final = 16  # height of a line of text
TEXT: Final = 12  # size of the letters
INK: Final = (30, 30, 30)
GROUND: Final = (255, 255, 255)


def draw_disagreements(
    comparison: Comparison, images: Iterable[InputImage] = (), per_pair: int = 6
) -> Image.Image:
    """A row for each pair of rewards: the images of the largest disagreements with both ranks.

    Args:
        comparison: comparison of rewards.
        images: compared images, needed for those inside archives or tables.
        per_pair: largest number of images in a row.

    Raises:
        ImageError: no two rewards rank any image differently.
    """
    shown = {
        comparison.files[one.index]
        for found in comparison.disagreements.values()
        for one in found[:per_pair]
    }
    loaded = embedded_images(shown, images, SIDE)
    cells: list[Image.Image] = []
    for pair, found in comparison.disagreements.items():
        n = comparison.agreements[pair].n
        row = [
            _cell(comparison.files[one.index], loaded, _ranks(pair, one, n))
            for one in found[:per_pair]
        ]
        cells += row
        if row and len(comparison.agreements) > 1:
            cells += [Image.new("RGB", row[0].size, GROUND)] * (per_pair - len(row))
    if not cells:
        raise ImageError("no contact sheet: no two rewards rank any image differently")
    return contact_sheet(cells, columns=min(per_pair, len(cells)), gap=8)


def _ranks(pair: tuple[str, str], one: Disagreement, n: int) -> list[str]:
    """A line per reward with the rank of an image among n."""
    return [
        f"{pair[0]}: rank {one.rank_a:g} of {n} ({100 * one.percentile_a:.0f} %)",
        f"{pair[1]}: rank {one.rank_b:g} of {n} ({100 * one.percentile_b:.0f} %)",
    ]


def _cell(file: str, loaded: Mapping[str, Image.Image], lines: list[str]) -> Image.Image:
    cell = Image.new("RGB", (SIDE, SIDE + LINE * (len(lines) + 1)), GROUND)
    draw = ImageDraw.Draw(cell)
    font = ImageFont.load_default(TEXT)
    try:
        image = loaded.get(file) or thumbnail(load_image(Path(file)), SIDE)
        cell.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    except ImageError:  # the file was removed after scoring
        draw.text((2, SIDE // 2), "gone", fill=INK, font=font)
    for number, line in enumerate([Path(file).name, *lines]):
        draw.text((2, SIDE + number * LINE), _shortened(line, draw, font), fill=INK, font=font)
    return cell


def _shortened(
    line: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    """The line, without its middle if it is wider than the cell."""
    kept = len(line)
    shown = line
    while draw.textlength(shown, font=font) > SIDE - 4:
        kept -= 1
        shown = f"{line[: kept // 2]}…{line[len(line) - (kept - kept // 2) :]}"
    return shown
