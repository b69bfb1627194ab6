"""Small edits of a picture, each of which keeps its size: what a reward's sensitivity is measured with. Pillow only, no randomness."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final

from PIL import Image, ImageFilter, ImageOps

__all__ = ["EDITS", "SAME_IMAGE"]

Picture = Image.Image  # RGB

LUMA: Final = (0.299, 0.587, 0.114)  # Recommendation ITU-R BT.601-7, section 2.5.1
BORDER: Final = 4  # pixels


def brightness(picture: Picture, factor: float) -> Picture:
    """All levels times `factor`, rounded; Pillow's own ImageEnhance cuts the fraction off, which darkens by half a level."""
    return picture.convert("RGB", (factor, 0, 0, 0, 0, factor, 0, 0, 0, 0, factor, 0))


def saturation(picture: Picture, factor: float) -> Picture:
    """Luma + `factor` × (level - luma), rounded: 0 is grey, 1 the picture itself."""
    rows = [
        [(1 - factor) * weight + factor * (row == column) for column, weight in enumerate(LUMA)]
        for row in range(3)
    ]
    return picture.convert("RGB", (*rows[0], 0, *rows[1], 0, *rows[2], 0))


def jpeg(picture: Picture, quality: int) -> Picture:
    """Through a JPEG file and back, with Pillow's default chroma subsampling 4:2:0."""
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as decoded:
        return decoded.convert("RGB")


def crop_one_pixel(picture: Picture) -> Picture:
    """The left column and the top row cut off, the right column and the bottom row repeated: moved by one pixel, as large as before."""
    width, height = picture.size
    moved = picture.copy()
    moved.paste(picture.crop((1, 1, width, height)), (0, 0))
    if width > 1:
        moved.paste(moved.crop((width - 2, 0, width - 1, height)), (width - 1, 0))
    if height > 1:
        moved.paste(moved.crop((0, height - 2, width, height - 1)), (0, height - 1))
    return moved


def resize(picture: Picture, share: float) -> Picture:
    """Down to `share` of width and height and back up, both bicubic."""
    width, height = picture.size
    small = picture.resize(
        (max(1, round(width * share)), max(1, round(height * share))), Image.Resampling.BICUBIC
    )
    return small.resize((width, height), Image.Resampling.BICUBIC)


def border(picture: Picture) -> Picture:
    """A black frame of `BORDER` pixels painted over the margin."""
    width, height = picture.size
    framed = Image.new("RGB", picture.size)
    if width > 2 * BORDER and height > 2 * BORDER:
        framed.paste(
            picture.crop((BORDER, BORDER, width - BORDER, height - BORDER)), (BORDER, BORDER)
        )
    return framed


EDITS: Final[dict[str, Callable[[Picture], Picture]]] = {
    "flip": ImageOps.mirror,
    "crop 1 px": crop_one_pixel,
    "JPEG q95": lambda picture: jpeg(picture, 95),
    "JPEG q80": lambda picture: jpeg(picture, 80),
    "brightness +5 %": lambda picture: brightness(picture, 1.05),
    "brightness −5 %": lambda picture: brightness(picture, 0.95),
    "saturation +10 %": lambda picture: saturation(picture, 1.1),
    "saturation −10 %": lambda picture: saturation(picture, 0.9),
    "blur r=1": lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
    "sharpen": lambda picture: picture.filter(ImageFilter.SHARPEN),
    "resize 90 %": lambda picture: resize(picture, 0.9),
    "border 4 px": border,
}
"""Name → edit. An RGB picture in, a new one of the same size out."""

SAME_IMAGE: Final = ("flip", "crop 1 px", "JPEG q95")
"""The edits after which a viewer has no reason to like a picture more or less: the noise floor is taken from them."""
