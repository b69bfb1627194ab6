"""Image files opened within limits, before a decoder takes memory or time for what a header says.

A file of 38 bytes may state 16383×16383 pixels. So the header is read first, by one of `FORMATS`,
and the image is decoded only within `MAX_PIXELS` or the fewer pixels of its format.
"""

from __future__ import annotations

import os
import stat
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final

from PIL import Image

from ddpo.errors import ImageError

__all__ = [
    "FORMATS",
    "HEIF_SUFFIXES",
    "MAX_BYTES",
    "MAX_PIXELS",
    "gated",
    "open_image",
    "opened_file",
    "pixel_limit",
    "read_file",
    "register_heif",
    "wait_for_room",
]

FORMATS: Final = (
    *("AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "GIF"),
    *("HEIF", "ICNS", "ICO", "IM", "JPEG", "JPEG2000", "MSP", "PCD", "PCX", "PIXAR"),
    *("PNG", "PPM", "PSD", "QOI", "SGI", "SPIDER", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM"),
    "XVTHUMB",
)
"""Pillow's names of the formats that are opened, whatever the suffix of a file.

The JPEG reader opens MPO too. Left out are vectors, video and data (EPS, WMF, MPEG, HDF5), and two
without a signature (IMT, MCIDAS).
"""

HEIF_SUFFIXES: Final = (".heic", ".heics", ".heif", ".heifs", ".hif")
MAX_BYTES: Final = 512 * 1024 * 1024  # of an encoded image; 64 Mi pixels of 8 bytes
MAX_PIXELS: Final = 64 * 1024 * 1024
MAX_SIDE: Final = 128 * 1024  # Pillow's time for a row grows with the square of its length

CANVASES: Final = 40 * 1024 * 1024
PYTHON: Final = 8 * 1024 * 1024
FEWER_PIXELS: Final = {
    **dict.fromkeys(("AVIF", "HEIF", "ICNS", "ICO", "JPEG2000", "WEBP"), CANVASES),
    **dict.fromkeys(("BLP", "DDS", "FITS", "MSP", "QOI", "XPM"), PYTHON),
}
"""Limits of formats whose decoders need more.

Decoders with canvases of their own take up to 24 bytes per pixel, others 4 to 12. Those that Pillow
has in Python take about one second per million pixels.
"""

SCANNED_PIXELS: Final = MAX_PIXELS * 64  # pixels × scans of a JPEG file; usual are 1 to 12 scans
TILE_WIDTH: Final = 322  # tags of TIFF 6.0
TILE_LENGTH: Final = 323
ICON: Final = b"\0\0\1\0"
INSIDE_ICONS: Final = ("DIB", "JPEG2000", "PNG")
CHUNK: Final = 1024 * 1024  # bytes
OPENING: Final = Lock()
GATE: Final[ContextVar[Callable[[int], None] | None]] = ContextVar("gate", default=None)


@contextmanager
def gated(admit: Callable[[int], None]) -> Iterator[None]:
    """In the block, this thread calls `admit` with the pixels of each image before decoding it.

    The function may wait until there is memory, or raise ImageError.
    """
    token = GATE.set(admit)
    try:
        yield
    finally:
        GATE.reset(token)


def wait_for_room(pixels: int) -> None:
    """Calls the function of `gated`, if this thread is in its block."""
    admit = GATE.get()
    if admit is not None:
        admit(pixels)


@cache
def register_heif() -> bool:
    """Registers `pillow-heif` with Pillow; True if HEIC files can be read."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@contextmanager
def opened_file(path: Path) -> Iterator[BinaryIO]:
    """The file open for reading, without waiting for a writer as at a pipe.

    Pillow gets the open file, not its path: it would map the path into memory, and a file that
    another program cuts short meanwhile would end the process.

    Raises:
        ImageError: It is no regular file, or has more than `MAX_BYTES`.
        OSError: It cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        facts = os.fstat(handle)
        if stat.S_ISDIR(facts.st_mode):
            raise ImageError("it is a folder")
        if not stat.S_ISREG(facts.st_mode):
            raise ImageError("it is no regular file, but a pipe, a socket or a device")
        _check_bytes(facts.st_size)
        yield file


def read_file(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        OSError: The file cannot be read.
        ImageError: As `opened_file`.
    """
    with opened_file(path) as file:
        data = file.read(MAX_BYTES + 1)
    _check_bytes(len(data))
    return data


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ImageError(f"{size} bytes; an image has at most {MAX_BYTES >> 20} MiB")


def pixel_limit(image_format: str | None) -> int:
    """The most pixels that are decoded of a format; Pillow's own limit counts if it is lower."""
    limit = FEWER_PIXELS.get(image_format or "", MAX_PIXELS)
    return min(limit, Image.MAX_IMAGE_PIXELS or limit)


def open_image(file: BinaryIO, formats: Sequence[str] = FORMATS) -> Image.Image:
    """The image of an open file with its header read, whose size is within the limits.

    Args:
        file: Regular file, or bytes in memory.
        formats: Names of the formats that are tried.

    Raises:
        ImageError: It has too many pixels, or would take too long to decode.
        Exception: Of any class, raised by Pillow on damaged files.
    """
    register_heif()
    for inner in _images_of_icon(file) if "ICO" in formats else ():
        _check_pixels(*inner, pixel_limit("ICO"))
    with OPENING, warnings.catch_warnings():  # catch_warnings alone is not thread-safe
        warnings.simplefilter("ignore")  # bombs are refused below; others concern metadata
        image = Image.open(file, formats=_known(formats))
    limit = pixel_limit(image.format)
    _check_pixels(*image.size, limit)
    for width, height in _inner_sizes(image, file):
        _check_pixels(width, height, limit)
    if image.format in ("JPEG", "MPO"):
        _check_scans(image, file)
    return image


def _known(formats: Sequence[str]) -> tuple[str, ...]:
    """Those of the formats that this Pillow can open; it raises KeyError for others, such as HEIF.

    HEIF needs the package pillow-heif, and AVIF or JPEG2000 a Pillow that was built with them.
    """
    Image.init()
    return tuple(name for name in formats if name in Image.OPEN)


def _check_pixels(width: int, height: int, limit: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{width}×{height} pixels; a side has at most {MAX_SIDE}")
    if width * height > limit:
        raise ImageError(
            f"{width}×{height} pixels; so large an image may be a decompression bomb, "
            f"at most {limit / 1e6:.1f} million are decoded"
        )


def _inner_sizes(image: Any, file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Sizes of the tiles of a TIFF file, and of the images inside an icon of macOS."""
    if image.format == "TIFF":
        tags = image.tag_v2
        yield int(tags.get(TILE_WIDTH, 0)), int(tags.get(TILE_LENGTH, 0))
    if image.format == "ICNS":
        yield from _sizes_at(file, image.icns.dct.values())


def _images_of_icon(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Sizes of the images inside an icon of Windows, which Pillow decodes when it opens the file.

    Source: the layout of ICONDIR and ICONDIRENTRY in Microsoft's documentation of icons.
    """
    place = file.tell()
    header = file.read(6)
    if header[:4] == ICON:
        entries = file.read(16 * int.from_bytes(header[4:], "little"))
        numbers = struct.iter_unpack("<8xII", entries[: len(entries) // 16 * 16])
        yield from _sizes_at(file, [(start, length) for length, start in numbers])
    file.seek(place)


def _sizes_at(file: BinaryIO, places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Sizes of the images at places of a file, each a start and a length in bytes."""
    for start, length in places:
        file.seek(start)
        try:
            with Image.open(BytesIO(file.read(length)), formats=_known(INSIDE_ICONS)) as inner:
                yield inner.size
        except Exception:  # noqa: BLE001, S112  # pixels without a header, or damaged
            continue


def _check_scans(image: Image.Image, file: BinaryIO) -> None:
    """Raises for a JPEG file of very many scans, each of which goes through all pixels."""
    place = file.tell()
    file.seek(0)
    scans = 0
    last = b""
    while chunk := file.read(CHUNK):
        scans += (last + chunk).count(b"\xff\xda")
        last = chunk[-1:]
    file.seek(place)
    if scans * image.width * image.height > SCANNED_PIXELS:
        raise ImageError(f"{scans} scans of {image.width}×{image.height} pixels")
