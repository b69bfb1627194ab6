"""Pictures as part of the page: small ones pixel by pixel, large ones compressed so that the page stays mailable."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ddpo.errors import ImageError
from ddpo.images import load_image

__all__ = ["Album", "Inlined"]

LOSSLESS_SIDE: Final = 128  # pixels; up to here PNG
LARGEST_SIDE: Final = 512  # pixels; above this a picture is scaled down, on the page only
WEBP_QUALITY: Final = 82


@dataclass(frozen=True, slots=True)
class Inlined:
    """A picture as a `data:` address."""

    address: str
    width: int
    height: int

    @property
    def pixelated(self) -> bool:
        """Whether it should be enlarged without smoothing."""
        return max(self.width, self.height) <= LOSSLESS_SIDE


class Album:
    """The pictures of a folder, each read and encoded once however often a page is tried."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Inlined | None] = {}
        self._figures = 0

    def number(self) -> int:
        """A number that no other figure of the page has."""
        self._figures += 1
        return self._figures

    def picture(self, file: str | None) -> Inlined | None:
        """The picture of a file; None if it is gone or damaged, so that a page can always be made."""
        if file is None:
            return None
        if file not in self._known:
            self._known[file] = _inlined(self._folder / file)
        return self._known[file]


def _inlined(path: Path) -> Inlined | None:
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
    return Inlined(
        f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}",
        image.width,
        image.height,
    )
