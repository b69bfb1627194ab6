"""Small images for notebooks and local pages."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Final

from ddpo.text import shortened, single_line

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["MOST_BYTES", "SHOWN", "data_address", "small_copy", "strip_html", "thumbnail_png"]

SHOWN: Final = 8  # images of a strip
SIDE: Final = 96  # pixels of the longer side
CAPTION: Final = 100  # characters
CAPTION_STYLE: Final = f"width:{SIDE}px;font-size:11px;overflow-wrap:anywhere"
MOST_BYTES: Final = 32_000  # of the encoded images of a strip, 43 kB as `data:` addresses
QUALITIES: Final = (85, 60, 30)
"""Qualities of WebP, tried in order where a PNG is too large."""


def strip_html(
    images: Sequence[Image.Image], captions: Sequence[str], *, shown_captions: bool = False
) -> str:
    """The first images side by side, each with its caption as a tooltip.

    Args:
        images: images to show, of which the first `SHOWN` are.
        captions: text of each image.
        shown_captions: True for captions also below the images.
    """
    shown = images[:SHOWN]
    figures = []
    for image, caption in zip(shown, captions[:SHOWN], strict=True):
        text = escape(shortened(single_line(caption), CAPTION), quote=True)
        below = f"<figcaption style='{CAPTION_STYLE}'>{text}</figcaption>" if shown_captions else ""
        address = data_address(image, SIDE, MOST_BYTES // len(shown))
        figures.append(
            "<figure style='display:inline-block;margin:2px;vertical-align:top'>"
            f"<img src='{address}' alt='{text}' title='{text}'>{below}</figure>"
        )
    left = len(images) - SHOWN
    return f"<div>{''.join(figures)}{f' and {left} more' if left > 0 else ''}</div>"


def data_address(image: Image.Image, side: int, most: int) -> str:
    """The image as a `data:` address.

    Args:
        image: image to show.
        side: largest length of its longer side, in pixels.
        most: largest number of its encoded bytes; a PNG that is larger becomes WebP, and smaller.
    """
    data = thumbnail_png(image, side)
    kind = "png"
    while len(data) > most and side > 1:
        small = small_copy(image, side)
        for quality in QUALITIES:
            file = BytesIO()
            small.save(file, format="WEBP", quality=quality)
            data = file.getvalue()
            if len(data) <= most:
                break
        kind = "webp"
        side //= 2
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def thumbnail_png(image: Image.Image, side: int) -> bytes:
    """The image as a PNG, its longer side at most `side` pixels."""
    file = BytesIO()
    small_copy(image, side).save(file, format="PNG")
    return file.getvalue()


def small_copy(image: Image.Image, side: int = SIDE) -> Image.Image:
    """A copy of the image, its longer side at most `side` pixels."""
    small = image.copy()
    small.thumbnail((side, side))
    return small
