"""Pictures as part of the page: small ones pixel by pixel, large ones compressed so that the page stays mailable."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Final

from ddpo.errors import ImageError
from ddpo.images import load_image

__all__ = ["Inlined", "inline_picture"]

LOSSLESS_SIDE: Final = 128  # pixels; up to here PNG
LARGEST_SIDE: Final = 512  # pixels; above this a picture is scaled down, on the page only
WEBP_QUALITY: Final = 82


class Inlined:
    """A picture as a `data:` address; `pixelated` says that it should be enlarged without smoothing."""

    def __init__(self, address: str, width: int, height: int) -> None:
        self.address, self.width, self.height = address, width, height
        self.pixelated = max(width, height) <= LOSSLESS_SIDE


def inline_picture(path: Path) -> Inlined | None:
    """The picture of a file for a page; None if it is gone or damaged, so that a page can always be made."""
    try:
        image = load_image(path)
    except ImageError:
        return None
    buffer = io.BytesIO()
    if max(image.size) <= LOSSLESS_SIDE:
        kind = "png"
        image.save(buffer, "PNG", optimize=True)
    else:
        kind = "webp"
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        image.save(buffer, "WEBP", quality=WEBP_QUALITY)
    return Inlined(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", image.width, image.height)
