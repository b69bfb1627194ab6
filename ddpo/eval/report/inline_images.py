"""Images inside the page: small ones without loss, large ones compressed to keep the page small."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ddpo.errors import ImageError
from ddpo.images import load_image

__all__ = ["ImageEncoder", "InlineImage"]

LOSSLESS_SIDE: Final = 128  # pixels; larger images are WebP instead of PNG
LARGEST_SIDE: Final = 512  # pixels; larger images are scaled down, on the page only
WEBP_QUALITY: Final = 82


@dataclass(frozen=True, slots=True)
class InlineImage:
    """An image as a `data:` address."""

    address: str
    width: int
    height: int

    @property
    def is_pixelated(self) -> bool:
        """True for a small image, which is enlarged without smoothing."""
        return max(self.width, self.height) <= LOSSLESS_SIDE


class ImageEncoder:
    """Encodes the images of a folder, each once.

    Args:
        folder: folder that the image files are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._encoded: dict[tuple[str, int], InlineImage | None] = {}

    def encode(self, file: str | None, side: int = LARGEST_SIDE) -> InlineImage | None:
        """The image of a file; None if the file is missing or damaged.

        Args:
            file: image file, relative to the folder; None: there is none.
            side: largest side in pixels; larger images are scaled down.
        """
        if file is None:
            return None
        if (file, side) not in self._encoded:
            self._encoded[file, side] = _inline(self._folder / file, side)
        return self._encoded[file, side]


def _inline(path: Path, side: int) -> InlineImage | None:
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
        image.thumbnail((side, side))
        image.save(buffer, "WEBP", quality=WEBP_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    return InlineImage(f"data:image/{kind};base64,{data}", image.width, image.height)
