"""One image of a user: a file, encoded bytes from a table or an archive, or one in memory."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ddpo.errors import ImageError
from ddpo.image_opening import read_file
from ddpo.io.atomic import printable, storing
from ddpo.types import Prompt

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["InputImage", "Origin", "copied_to", "image_of_file", "same_state"]

TIMED: Final = 3  # numbers in the state of an image file

Origin = Literal["table", "caption", "image", "folder", "name", "given"]
"""The origin of a prompt.

In order: a table of the folder, a caption file beside the image, the image's metadata, the single
prompt of the folder, the image's name, or the user's --prompt and --prompts.
"""


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image and the prompt it was generated from."""

    file: str  # printable path, with the place inside a container
    prompt: Prompt | None = None
    no_prompt: str | None = None  # the reason why an existing caption gives no prompt
    origin: Origin | None = None  # of the prompt
    index: Any = None  # index among the images of its prompt, from a table or a file name
    data: bytes | None = field(default=None, repr=False)  # the encoded image, if not a file
    image: Image.Image | None = field(default=None, repr=False)  # the image itself, in memory
    place: str | None = None  # path of the image file, if it differs from `file`
    damage: str | None = None  # the reason why its row or archive holds no image

    @property
    def path(self) -> str:
        """The path of the image file."""
        return self.place or self.file

    def load(self) -> Image.Image:
        """The image as upright RGB.

        Raises:
            ImageError: As `ddpo.images.load_image`.
        """
        if self.damage is not None:
            raise ImageError(f"{self.file}: {self.damage}")
        from ddpo.images import decode_image, load_image, to_rgb  # numpy slows a mistyped command

        if self.image is not None:
            return to_rgb(self.image)
        if self.data is not None:
            return decode_image(self.data, self.file)
        return load_image(Path(self.path))

    def encoded(self) -> bytes:
        """The bytes of the image file; those of a PNG for an image in memory.

        Raises:
            OSError: The file cannot be read.
            ImageError: It is no regular file, or too large for an image.
        """
        if self.damage is not None:
            raise ImageError(f"{self.file}: {self.damage}")
        if self.image is not None:
            file = BytesIO()
            self.image.save(file, format="PNG")
            return file.getvalue()
        return read_file(Path(self.path)) if self.data is None else self.data

    def state(self) -> list[int] | None:
        """Numbers that change with the image: size and times of its file, or size and CRC-32."""
        try:
            if self.data is None and self.image is None and self.place is None:
                found = os.stat(self.file)
                return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
            data = self.encoded()
        except (OSError, ValueError):  # ImageError, or a path with a NUL character
            return None
        return [len(data), zlib.crc32(data)]


def same_state(before: object, now: Sequence[int] | None) -> bool:
    """True if two results of `InputImage.state` are of the same content.

    Programs can set the time of modification, not that of the last change, which older versions did
    not record.
    """
    if isinstance(before, list) and len(before) == TIMED - 1 and now and len(now) == TIMED:
        return before == list(now[: TIMED - 1])
    return before == now


def image_of_file(path: str) -> InputImage:
    """The image file at `path`, with escapes for a name that is not UTF-8."""
    if path.isascii():
        return InputImage(path)
    try:
        path.encode()
    except UnicodeEncodeError:
        return InputImage(printable(path), place=path)
    return InputImage(path)


def copied_to(folder: Path, images: Iterable[InputImage]) -> Iterator[InputImage]:
    """The same images, with encoded bytes written to files of `folder` for later reading.

    Raises:
        StorageFailure: A file cannot be written.
    """
    for number, image in enumerate(images):
        if image.data is None:
            yield image
            continue
        path = folder / str(number)
        with storing(path):
            path.write_bytes(image.data)
        yield replace(image, data=None, place=str(path))
