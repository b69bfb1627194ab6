"""A picture of the best and the worst pictures, with their scores."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ddpo.errors import ImageError
from ddpo.images import contact_sheet, load_image
from ddpo.inputs.input_image import InputImage
from ddpo.rewards.image_files.summary import RunningSummary

__all__ = ["embedded_images", "extremes_sheet"]

CELL: Final = 160  # pixels
CAPTION: Final = 18  # pixels


def extremes_sheet(
    tallies: Mapping[str, RunningSummary], pictures: Iterable[InputImage] = ()
) -> Image.Image:
    """Two rows per reward, the best and the worst files, each best or worst first. The reward's name stands at the left.

    Args:
        tallies: reward → its scores.
        pictures: the images that were scored; looked through for those that are no files of their own.

    Raises:
        ImageError: nothing was scored.
    """
    rows = [
        (f"{name}\n{word}", files)
        for name, tally in tallies.items()
        for word, files in _ends(tally)
    ]
    columns = max((len(files) for _, files in rows), default=0)
    if not columns:
        raise ImageError("no picture was scored: there is nothing for a contact sheet")
    shown = {file for _, files in rows for file, _ in files}
    loaded = embedded_images(shown, pictures, (CELL, CELL))
    cells: list[Image.Image] = []
    for title, files in rows:
        cells.append(_text_cell(title))
        cells += [_picture_cell(file, loaded, score) for file, score in files]
        cells += [_blank()] * (columns - len(files))
    return contact_sheet(cells, columns=columns + 1)


def _ends(tally: RunningSummary) -> list[tuple[str, list[tuple[str, float]]]]:
    shown = max(1, tally.summary().scored // 2)
    return [("best", tally.best()[:shown]), ("worst", tally.worst()[:shown])]


def _blank() -> Image.Image:
    return Image.new("RGB", (CELL, CELL + CAPTION), "white")


def _text_cell(text: str) -> Image.Image:
    cell = _blank()
    draw, size = ImageDraw.Draw(cell), 18
    while (
        size > 8
        and draw.multiline_textbbox((0, 0), text, ImageFont.load_default(size))[2] > CELL - 8
    ):
        size -= 1
    draw.multiline_text((4, CELL // 2 - 20), text, "black", ImageFont.load_default(size))
    return cell


def embedded_images(
    files: Collection[str], pictures: Iterable[InputImage], size: tuple[int, int]
) -> dict[str, Image.Image]:
    """File → image within `size`, of those of `files` that lie in a table or an archive."""
    left = {file for file in files if not os.path.exists(file)}
    found: dict[str, Image.Image] = {}
    for picture in pictures if left else ():
        if picture.file in left:
            found[picture.file] = ImageOps.contain(picture.load(), size)
            left.remove(picture.file)
        if not left:
            break
    return found


def _picture_cell(file: str, loaded: Mapping[str, Image.Image], score: float) -> Image.Image:
    cell = _blank()
    try:
        picture = (
            loaded[file]
            if file in loaded
            else ImageOps.contain(load_image(Path(file)), (CELL, CELL))
        )
        cell.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    except ImageError:  # it went away since it was scored
        ImageDraw.Draw(cell).text((4, CELL // 2), "gone", "grey", ImageFont.load_default(14))
    ImageDraw.Draw(cell).text((4, CELL + 1), f"{score:.5g}", "black", ImageFont.load_default(14))
    return cell
