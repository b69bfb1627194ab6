"""Small images for notebooks and local pages."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["data_address", "strip_html", "thumbnail_png"]

SHOWN: Final = 8  # images of a strip
SIDE: Final = 96  # pixels of the longer side


def strip_html(images: Sequence[Image.Image], captions: Sequence[str]) -> str:
    """The first images side by side, each with its caption as a tooltip."""
    figures = "".join(
        f"<img src='{data_address(image, SIDE)}' style='margin:2px' "
        f"alt='{escape(caption, quote=True)}' title='{escape(caption, quote=True)}'>"
        for image, caption in zip(images[:SHOWN], captions[:SHOWN], strict=True)
    )
    left = len(images) - SHOWN
    return f"<div>{figures}{f' and {left} more' if left > 0 else ''}</div>"


def data_address(image: Image.Image, side: int) -> str:
    """The image as a `data:` address, its longer side at most `side` pixels."""
    return f"data:image/png;base64,{base64.b64encode(thumbnail_png(image, side)).decode()}"


def thumbnail_png(image: Image.Image, side: int) -> bytes:
    """The image as a PNG, its longer side at most `side` pixels."""
    small = image.copy()
    small.thumbnail((side, side))
    file = BytesIO()
    small.save(file, format="PNG")
    return file.getvalue()
