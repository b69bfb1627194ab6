"""One picture for people: the images on which two rewards differ most, each with its rank under both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ddpo.errors import ImageError
from ddpo.images import contact_sheet, load_image
from ddpo.inputs.input_image import InputImage
from ddpo.reward_quality.comparison import Comparison
from ddpo.rewards.image_files.sheet import embedded_images

__all__ = ["draw_disagreements"]

SIDE: Final = 224  # of a thumbnail, pixels
LINE: Final = 16  # height of a line of text
TEXT: Final = 12  # size of the letters
INK: Final = (30, 30, 30)
GROUND: Final = (255, 255, 255)


def draw_disagreements(
    comparison: Comparison, pictures: Iterable[InputImage] = (), per_pair: int = 6
) -> Image.Image:
    """A row for each pair of rewards: the images with the largest difference of percentiles, and under each both ranks.

    Args:
        comparison: of rewards on images.
        pictures: the images; looked through for those that are no files of their own.
        per_pair: images in a row, at most.

    Raises:
        ImageError: there is nothing to show.
    """
    shown = {
        comparison.files[one.index]
        for found in comparison.disagreements.values()
        for one in found[:per_pair]
    }
    loaded = embedded_images(shown, pictures, (SIDE, SIDE))
    cells: list[Image.Image] = []
    for pair, found in comparison.disagreements.items():
        n = comparison.agreements[pair].n
        row = [
            _cell(
                comparison.files[one.index],
                loaded,
                [
                    f"{name}: rank {rank:g} of {n} ({100 * percentile:.0f} %)"
                    for name, rank, percentile in zip(
                        pair,
                        (one.rank_a, one.rank_b),
                        (one.percentile_a, one.percentile_b),
                        strict=True,
                    )
                ],
            )
            for one in found[:per_pair]
        ]
        if row:
            cells += row + [Image.new("RGB", row[0].size, GROUND)] * (
                per_pair - len(row) if len(comparison.agreements) > 1 else 0
            )
    if not cells:
        raise ImageError("no contact sheet: no two rewards rank any image differently")
    return contact_sheet(cells, columns=min(per_pair, len(cells)), gap=8)


def _cell(file: str, loaded: Mapping[str, Image.Image], lines: list[str]) -> Image.Image:
    cell = Image.new("RGB", (SIDE, SIDE + LINE * (len(lines) + 1)), GROUND)
    draw, font = ImageDraw.Draw(cell), ImageFont.load_default(TEXT)
    try:
        thumbnail = (
            loaded[file]
            if file in loaded
            else ImageOps.contain(load_image(Path(file)), (SIDE, SIDE))
        )
        cell.paste(thumbnail, ((SIDE - thumbnail.width) // 2, (SIDE - thumbnail.height) // 2))
    except ImageError:  # it went away since it was scored
        draw.text((2, SIDE // 2), "gone", fill=INK, font=font)
    for number, line in enumerate([Path(file).name, *lines]):
        draw.text((2, SIDE + number * LINE), _shortened(line, draw, font), fill=INK, font=font)
    return cell


def _shortened(
    line: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    """The line, with its middle left out if it is wider than the cell."""
    kept, shown = len(line), line
    while draw.textlength(shown, font=font) > SIDE - 4:
        kept -= 1
        shown = f"{line[: kept // 2]}…{line[len(line) - (kept - kept // 2) :]}"
    return shown
