"""Picture files decoded ahead by threads, handed out in order, within a bound of memory whatever their number and size."""

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
"""Bytes of decoded pictures that are kept ahead; as many as there are threads are always allowed."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture as RGB, or the reason why there is none."""

    picture: InputImage
    image: Image.Image | None
    error: str | None = None

    @property
    def bytes(self) -> int:
        """Of memory: Pillow takes four for a pixel."""
        return 4 * self.image.width * self.image.height if self.image is not None else 0


def decode(picture: InputImage) -> Decoded:
    """Reads and decodes one image."""
    try:
        return Decoded(picture, picture.load())
    except ImageError as error:
        return Decoded(picture, None, str(error).replace(picture.path, picture.file))


def decode_ahead(pictures: Iterable[InputImage], threads: int, ahead: int) -> Iterator[Decoded]:
    """`pictures` decoded, in order, within `MEMORY`.

    Args:
        pictures: what to decode; drawn from as needed.
        threads: how many decode at once (Pillow's decoders release the interpreter).
        ahead: how many pictures may be decoded before they are asked for, at most.
    """
    waiting: deque[Future[Decoded]] = deque()
    source = iter(pictures)
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
