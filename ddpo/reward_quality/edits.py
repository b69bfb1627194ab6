"""Small edits of RGB images that keep their size, for the sensitivity of a reward.

They use Pillow only, and no randomness.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from typing import Final

from PIL import Image, ImageFilter, ImageOps

__all__ = ["EDITS", "SAME_IMAGE", "same_image_edits"]

LUMA: Final = (0.299, 0.587, 0.114)  # Recommendation ITU-R BT.601-7, section 2.5.1
BORDER: Final = 4  # pixels


def brightness(image: Image.Image, factor: float) -> Image.Image:
    """All levels times `factor`, rounded.

    Pillow's own ImageEnhance truncates, which darkens by half a level.
    """
    return image.convert("RGB", (factor, 0, 0, 0, 0, factor, 0, 0, 0, 0, factor, 0))


def saturation(image: Image.Image, factor: float) -> Image.Image:
    """Luma + `factor` × (level - luma), rounded: 0 is grey, 1 the image itself."""
    rows = [
        [(1 - factor) * weight + factor * (row == column) for column, weight in enumerate(LUMA)]
        for row in range(3)
    ]
    return image.convert("RGB", (*rows[0], 0, *rows[1], 0, *rows[2], 0))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Through a JPEG file and back, with Pillow's default chroma subsampling 4:2:0."""
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as decoded:
        return decoded.convert("RGB")


def crop_one_pixel(image: Image.Image) -> Image.Image:
    """The image moved by one pixel to the left and up; the last column and row are repeated."""
    width, height = image.size
    moved = image.copy()
    moved.paste(image.crop((1, 1, width, height)), (0, 0))
    if width > 1:
        moved.paste(moved.crop((width - 2, 0, width - 1, height)), (width - 1, 0))
    if height > 1:
        moved.paste(moved.crop((0, height - 2, width, height - 1)), (0, height - 1))
    return moved


def resize(image: Image.Image, share: float) -> Image.Image:
    """Down to `share` of width and height and back up, both bicubic."""
    width, height = image.size
    small = image.resize(
        (max(1, round(width * share)), max(1, round(height * share))), Image.Resampling.BICUBIC
    )
    return small.resize((width, height), Image.Resampling.BICUBIC)


def border(image: Image.Image) -> Image.Image:
    """A black frame of `BORDER` pixels painted over the margin."""
    width, height = image.size
    framed = Image.new("RGB", image.size)
    if width > 2 * BORDER and height > 2 * BORDER:
        framed.paste(
            image.crop((BORDER, BORDER, width - BORDER, height - BORDER)), (BORDER, BORDER)
        )
    return framed


EDITS: Final[dict[str, Callable[[Image.Image], Image.Image]]] = {
    "flip": ImageOps.mirror,
    "crop 1 px": crop_one_pixel,
    "JPEG q95": lambda image: jpeg(image, 95),
    "JPEG q80": lambda image: jpeg(image, 80),
    "brightness +5 %": lambda image: brightness(image, 1.05),
    "brightness −5 %": lambda image: brightness(image, 0.95),
    "saturation +10 %": lambda image: saturation(image, 1.1),
    "saturation −10 %": lambda image: saturation(image, 0.9),
    "blur r=1": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "sharpen": lambda image: image.filter(ImageFilter.SHARPEN),
    "resize 90 %": lambda image: resize(image, 0.9),
    "border 4 px": border,
}
"""Name → edit, which gives a new RGB image of the same size."""

SAME_IMAGE: Final = ("flip", "crop 1 px", "JPEG q95")
"""The edits that no viewer minds; they set the noise floor."""
MIRROR: Final = "flip"


def same_image_edits(inputs: Collection[str]) -> tuple[str, ...]:
    """The edits that set the noise floor of a reward with these inputs.

    A mirror image can break what a prompt states, such as a text or "left of". So it does not count
    for a reward that reads the prompt.
    """
    if "prompt" not in inputs:
        return SAME_IMAGE
    return tuple(name for name in SAME_IMAGE if name != MIRROR)
