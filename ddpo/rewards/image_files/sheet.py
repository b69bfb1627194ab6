"""A contact sheet of the best and the worst images, with their scores."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from ddpo.errors import ImageError
from ddpo.images import contact_sheet, load_image, thumbnail
from ddpo.inputs.input_image import InputImage
from ddpo.rewards.image_files.summary import RunningSummary

__all__ = ["embedded_images", "extremes_sheet"]

CELL: Final = 160  # pixels
CAPTION: Final = 18  # pixels


def extremes_sheet(
    summaries: Mapping[str, RunningSummary], images: Iterable[InputImage] = ()
) -> Image.Image:
    """Two rows per reward, its best and its worst files, with the reward's name at the left.

    Args:
        summaries: Summary of each reward, by name.
        images: Images that were scored, among which those of tables and archives are found.

    Raises:
        ImageError: No image was scored.
    """
    rows = [
        (f"{name}\n{word}", files)
        for name, summary in summaries.items()
        for word, files in _ends(summary)
    ]
    columns = max((len(files) for _, files in rows), default=0)
    if not columns:
        raise ImageError("no image was scored: there is nothing for a contact sheet")
    shown = {file for _, files in rows for file, _ in files}
    loaded = embedded_images(shown, images, CELL)
    cells: list[Image.Image] = []
    for title, files in rows:
        cells.append(_text_cell(title))
        cells += [_image_cell(file, loaded, score) for file, score in files]
        cells += [_blank()] * (columns - len(files))
    return contact_sheet(cells, columns=columns + 1)


def _ends(summary: RunningSummary) -> list[tuple[str, list[tuple[str, float]]]]:
    shown = max(1, summary.summary().scored // 2)
    return [("best", summary.best()[:shown]), ("worst", summary.worst()[:shown])]


def _blank() -> Image.Image:
    return Image.new("RGB", (CELL, CELL + CAPTION), "white")


def _text_cell(text: str) -> Image.Image:
    cell = _blank()
    draw = ImageDraw.Draw(cell)
    size = 18
    while size > 8 and _width(draw, text, size) > CELL - 8:
        size -= 1
    draw.multiline_text((4, CELL // 2 - 20), text, "black", ImageFont.load_default(size))
    return cell


def _width(draw: ImageDraw.ImageDraw, text: str, size: int) -> float:
    return draw.multiline_textbbox((0, 0), text, ImageFont.load_default(size))[2]


def embedded_images(
    files: Collection[str], images: Iterable[InputImage], side: int
) -> dict[str, Image.Image]:
    """File → image of the longer side `side`, for `files` that lie in a table or an archive."""
    left = {file for file in files if not os.path.exists(file)}
    found: dict[str, Image.Image] = {}
    for image in images if left else ():
        if image.file in left:
            with suppress(ImageError):  # changed since it was scored
                found[image.file] = thumbnail(image.load(), side)
            left.remove(image.file)
        if not left:
            break
    return found


def _image_cell(file: str, loaded: Mapping[str, Image.Image], score: float) -> Image.Image:
    cell = _blank()
    draw = ImageDraw.Draw(cell)
    try:
        image = loaded.get(file)
        if image is None:
            image = thumbnail(load_image(Path(file)), CELL)
        cell.paste(image, ((CELL - image.width) // 2, (CELL - image.height) // 2))
    except ImageError:  # deleted since it was scored
        draw.text((4, CELL // 2), "gone", "grey", ImageFont.load_default(14))
    draw.text((4, CELL + 1), f"{score:.5g}", "black", ImageFont.load_default(14))
    return cell
