"""One image that a user brings: a file, or encoded bytes in a table or an archive."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from ddpo.images import decode_image, load_image
from ddpo.io.atomic import printable
from ddpo.types import Prompt

__all__ = ["InputImage", "Origin", "copied_to", "image_of_file"]

Origin = Literal["table", "caption", "image", "folder", "name", "given"]
"""Where a prompt came from: a table of the folder, a caption file beside the image, the metadata in
the image, the folder's one prompt, the image's name, or the user's --prompt and --prompts."""


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image and the prompt that it was made from."""

    file: str  # its path, or the container's path and the place in it: text for tables and messages
    prompt: Prompt | None = None
    no_prompt: str | None = None  # why a caption that is there gives no prompt
    origin: Origin | None = None  # of the prompt
    index: Any = None  # which image of its prompt, as a table or a file name has it
    data: bytes | None = field(default=None, repr=False)  # the encoded image, if it is no file
    place: str | None = None  # the file that holds the image, if that is not `file`

    @property
    def path(self) -> str:
        """The file that holds the image."""
        return self.place or self.file

    def load(self) -> Image.Image:
        """The image as upright RGB.

        Raises:
            ImageError: as `ddpo.images.load_image`.
        """
        if self.data is not None:
            return decode_image(self.data, self.file)
        return load_image(Path(self.path))

    def encoded(self) -> bytes:
        """The bytes of the image file; raises OSError if it cannot be read."""
        return Path(self.path).read_bytes() if self.data is None else self.data

    def state(self) -> list[int] | None:
        """Two numbers that change with the image: size, and time of modification or CRC-32."""
        try:
            if self.data is None and self.place is None:
                found = os.stat(self.file)
                return [found.st_size, found.st_mtime_ns]
            data = self.encoded()
        except OSError:
            return None
        return [len(data), zlib.crc32(data)]


def image_of_file(path: str) -> InputImage:
    """The image file at `path`; a name that is not UTF-8 is shown with escapes."""
    if path.isascii():
        return InputImage(path)
    try:
        path.encode()
    except UnicodeEncodeError:
        return InputImage(printable(path), place=path)
    return InputImage(path)


def copied_to(folder: Path, pictures: Iterable[InputImage]) -> Iterator[InputImage]:
    """The same images with encoded bytes written to files of `folder`, to be read at any time."""
    for number, picture in enumerate(pictures):
        if picture.data is None:
            yield picture
            continue
        path = folder / str(number)
        path.write_bytes(picture.data)
        yield replace(picture, data=None, place=str(path))
