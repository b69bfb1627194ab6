"""Image files decoded ahead by threads, in order and within a bound of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from PIL import Image

from ddpo.errors import ImageError
from ddpo.inputs.input_image import InputImage

__all__ = ["MEMORY", "Decoded", "decode_ahead"]

MEMORY: Final = 256 * 1024 * 1024
"""Bytes of decoded images held ahead; one image per thread is always allowed."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """An input as an RGB image, or the reason why it cannot be decoded."""

    source: InputImage
    image: Image.Image | None
    error: str | None = None

    @property
    def bytes(self) -> int:
        """Size in memory, of which Pillow takes four bytes per pixel."""
        return 4 * self.image.width * self.image.height if self.image is not None else 0


def decode(source: InputImage) -> Decoded:
    """Reads and decodes one image."""
    try:
        return Decoded(source, source.load())
    except ImageError as error:
        return Decoded(source, None, str(error).replace(source.path, source.file))


def decode_ahead(images: Iterable[InputImage], threads: int, ahead: int) -> Iterator[Decoded]:
    """The decoded images, in order, within `MEMORY`.

    Args:
        images: Images to decode, read as needed.
        threads: Number of decoding threads; Pillow's decoders release the interpreter.
        ahead: Largest number of images decoded in advance.
    """
    waiting: deque[Future[Decoded]] = deque()
    source = iter(images)
    largest = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="ddpo-decode") as pool:
        try:
            while True:
                while len(waiting) < threads or (
                    len(waiting) < ahead and (len(waiting) + 1) * largest <= MEMORY
                ):
                    following = next(source, None)
                    if following is None:
                        break
                    waiting.append(pool.submit(decode, following))
                if not waiting:
                    return
                decoded = waiting.popleft().result()
                largest = max(largest, decoded.bytes)
                yield decoded
        finally:
            for future in waiting:
                future.cancel()
