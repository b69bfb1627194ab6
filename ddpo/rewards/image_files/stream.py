"""Image files decoded ahead by threads, in order and within a bound of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition
from typing import Final

from PIL import Image

from ddpo.errors import ImageError
from ddpo.image_opening import gated
from ddpo.inputs.input_image import InputImage

__all__ = ["MEMORY", "Decoded", "decode_ahead"]

MEMORY: Final = 256 * 1024 * 1024
"""Bytes of images decoded ahead or being decoded; the next image is always allowed."""

DECODED: Final = 4  # bytes of Pillow's image per pixel
DECODING: Final = 16  # bytes per pixel while it is decoded; Pillow's decoders take 4 to 24
LARGEST_DATA: Final = 64 * 1024 * 1024  # bytes of encoded images from tables and archives


@dataclass(frozen=True, slots=True)
class Decoded:
    """An input as an RGB image, or the reason why it cannot be decoded."""

    source: InputImage
    image: Image.Image | None
    error: str | None = None

    @property
    def bytes(self) -> int:
        """Size in memory, of which Pillow takes four bytes per pixel."""
        return DECODED * self.image.width * self.image.height if self.image is not None else 0


def decode(source: InputImage) -> Decoded:
    """Reads and decodes one image."""
    try:
        return Decoded(source, source.load())
    except ImageError as error:
        return Decoded(source, None, str(error).replace(source.path, source.file))


class _Window:
    """Memory of the images decoded ahead, for which their threads wait.

    The image that the consumer waits for is always admitted once no other is being decoded.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._used: dict[int, int] = {}  # number of an image → its bytes
        self._decoding: set[int] = set()
        self._awaited = -1
        self._closed = False

    def decode(self, number: int, source: InputImage) -> Decoded:
        """Decodes the image of a number when there is memory for it."""
        try:
            with gated(lambda pixels: self._admit(number, pixels)):
                decoded = decode(source)
        finally:
            with self._changed:
                self._decoding.discard(number)
        with self._changed:
            self._used[number] = decoded.bytes
            self._changed.notify_all()
        return decoded

    def _admit(self, number: int, pixels: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(number, pixels))
            if self._closed:
                raise ImageError("it is not needed any more")
            self._decoding.add(number)
            self._used[number] = DECODING * pixels

    def _has_room(self, number: int, pixels: int) -> bool:
        room = sum(self._used.values()) + DECODING * pixels <= MEMORY
        return room or (number == self._awaited and not self._decoding)

    def wait_for(self, number: int) -> None:
        """States the image that the consumer needs next."""
        with self._changed:
            self._awaited = number
            self._changed.notify_all()

    def release(self, number: int) -> None:
        """Frees the memory of an image that the consumer has taken."""
        with self._changed:
            self._awaited = -1
            self._used.pop(number, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the waiting of all threads; their images are not decoded."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def decode_ahead(images: Iterable[InputImage], threads: int, ahead: int) -> Iterator[Decoded]:
    """The decoded images, in order, within `MEMORY`.

    Args:
        images: Images to decode, read as needed.
        threads: Number of decoding threads; Pillow's decoders release the interpreter.
        ahead: Largest number of images decoded in advance.
    """
    waiting: deque[tuple[int, int, Future[Decoded]]] = deque()  # number, encoded bytes, result
    source = enumerate(images)
    largest = 0
    window = _Window()
    with ThreadPoolExecutor(threads, thread_name_prefix="ddpo-decode") as pool:
        try:
            while True:
                encoded = sum(size for _, size, _ in waiting)
                while not waiting or (
                    encoded < LARGEST_DATA
                    and len(waiting) < ahead
                    and (len(waiting) < threads or (len(waiting) + 1) * largest <= MEMORY)
                ):
                    number, following = next(source, (-1, None))
                    if following is None:
                        break
                    size = len(following.data or b"")
                    encoded += size
                    waiting.append((number, size, pool.submit(window.decode, number, following)))
                if not waiting:
                    return
                number, _, result = waiting.popleft()
                window.wait_for(number)
                decoded = result.result()
                window.release(number)
                largest = max(largest, decoded.bytes)
                yield decoded
        finally:
            window.close()
            for _, _, future in waiting:
                future.cancel()
