"""Addresses that were given where an image on this machine is meant."""

from __future__ import annotations

import os
import re
from typing import Final

from ddpo.errors import ImageError, UserError
from ddpo.text import shortened, single_line, without_secrets

__all__ = ["names_image_elsewhere", "refuse_address"]

ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]+:/{1,3}(?!/)\S|data:[\w/+.-]*[;,]", re.IGNORECASE)
"""Start of an address, of whose two slashes a path keeps one; a drive has one letter."""
WEB: Final = re.compile(r"https?:", re.IGNORECASE)
IMAGES: Final = re.compile(
    r"[^?#]*\.(avif|bmp|csv|gif|heic|jfif|jpe?g|jsonl|parquet|png|svg|tar|tgz|tiff?|tsv|webp|zip)"
    r"([?#].*)?",
    re.IGNORECASE | re.DOTALL,
)
"""Address of images on the web, rather than of a reward server."""


def refuse_address(
    place: str | os.PathLike[str], name: str = "", error: type[UserError] = ImageError
) -> None:
    """Refuses an address; a file of that name on this machine is none.

    Args:
        place: Place of an image, as the user gave it or as a path.
        name: Words for the image in the message; "" for none.
        error: Class of the error.

    Raises:
        UserError: It is an address; an error of the class `error`.
    """
    text = os.fsdecode(place)
    if ADDRESS.match(text) and not os.path.lexists(text):
        whole = re.sub(r"^([a-z][\w+.-]+):/(?!/)", r"\1://", single_line(text))
        shown = shortened(without_secrets(whole), 80)
        where = f"{name}: " if name else ""
        advice = "ddpo reads files: save the image and give its path"
        raise error(f"{where}{shown} is an address; {advice}")


def names_image_elsewhere(word: str) -> bool:
    """True for an address of images, not of a reward server."""
    if not ADDRESS.match(word) or os.path.lexists(word):
        return False
    return not WEB.match(word) or bool(IMAGES.fullmatch(word))
