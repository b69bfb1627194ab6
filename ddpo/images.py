"""All pixel conventions: rounding to uint8, axis order, PIL, PNG, EXIF orientation, transparency.

The canonical form is float32 `[batch, 3, height, width]` in [0, 1], sRGB. Only `to_uint8` rounds
to uint8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ddpo.errors import ImageError
from ddpo.image_opening import HEIF_SUFFIXES, open_image, opened_file, register_heif, wait_for_room
from ddpo.io.atomic import atomic_path, printable, storing
from ddpo.text import single_line

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "contact_sheet",
    "decode_image",
    "decoded_image",
    "floats_of",
    "from_images",
    "from_uint8",
    "load_image",
    "pixels_sha256",
    "save_png",
    "thumbnail",
    "to_pil",
    "to_rgb",
    "to_uint8",
]

SHEET_KEY: Final = "ddpo"
SHEET_VALUE: Final = "contact sheet"
"""Text chunk of a PNG that is a contact sheet, so that readers of images leave it out."""
ORIENTATION: Final = 0x0112  # of EXIF
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → the transpose that turns the image upright (CIPA DC-008, section 4.6.5.1)."""

ORIENTED: Final = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
"""Entries of `Image.info` in which Pillow looks for an orientation."""

BITS_PER_SAMPLE: Final = 258  # tags of TIFF 6.0
PHOTOMETRIC: Final = 262
SIXTEEN_BITS: Final = ("I;16", "I;16B", "I;16L", "I;16N")
SLACK: Final = 1e-3  # tolerance beyond 0 … 1 in float pixels, for rounding and resampling
BAND: Final = 4 * 1024 * 1024  # pixels converted at a time, which bounds temporary memory


def to_uint8(pixels: Tensor) -> NDArray[np.uint8]:
    """Canonical pixels as uint8 `[batch, height, width, 3]`, rounded to the nearest level.

    Raises:
        ImageError: A value is NaN or outside [0, 1] by more than rounding error.
    """
    import torch

    pixels = pixels.detach()
    if pixels.device.type != "cpu":
        return _levels_on_device(pixels)
    count, _, height, width = pixels.shape
    result = torch.empty((count, height, width, 3), dtype=torch.uint8)
    # One image at a time stays in the processor's cache, which is many times as fast as a batch.
    for index, image in enumerate(pixels):
        if image.numel():
            low, high = image.aminmax()
            _check_range(float(low), float(high), index)
        levels = (image.float() * 255.0).round_().clamp_(0, 255).to(torch.uint8)
        result[index] = levels.permute(1, 2, 0)
    array: NDArray[np.uint8] = result.numpy()
    return array


def _levels_on_device(pixels: Tensor) -> NDArray[np.uint8]:
    """As `to_uint8`, but rounded on the accelerator, so that one copy of bytes leaves it."""
    import torch

    if pixels.numel():
        lows = pixels.flatten(1).amin(1)
        highs = pixels.flatten(1).amax(1)
        for index, (low, high) in enumerate(torch.stack([lows, highs], 1).float().tolist()):
            _check_range(low, high, index)
    levels = (pixels.float() * 255.0).round_().clamp_(0, 255).to(torch.uint8)
    array: NDArray[np.uint8] = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


def _check_range(low: float, high: float, index: int) -> None:
    """Raises `ImageError` unless the extreme values of an image lie in [0, 1], within `SLACK`."""
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise ImageError(f"pixels must be in [0, 1], got {low:.3g} … {high:.3g} in image {index}")


def from_uint8(array: NDArray[np.uint8]) -> Tensor:
    """Canonical pixels from uint8 `[batch, height, width, 3]`.

    Raises:
        ImageError: The array has another type or shape.
    """
    import torch

    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
        raise ImageError(
            f"expected uint8 [batch, height, width, 3], got {array.dtype} {list(array.shape)}"
        )
    return torch.from_numpy(_floats(array, array.shape))


def floats_of(images: Sequence[Image.Image]) -> Tensor:
    """Canonical pixels of images of one size, in any mode, without a copy of all their bytes."""
    import torch

    size = images[0].size
    arrays = (np.asarray(to_rgb(image)) for image in images)
    return torch.from_numpy(_floats(arrays, (len(images), size[1], size[0], 3)))


def _floats(arrays: Iterable[NDArray[np.uint8]], shape: Sequence[int]) -> NDArray[np.float32]:
    """float32 `[batch, 3, height, width]` in [0, 1] from uint8 `[height, width, 3]` each."""
    count, height, width, _ = shape
    pixels = np.empty((count, 3, height, width), np.float32)
    for array, out in zip(arrays, pixels, strict=True):  # twice as fast as a whole batch
        np.divide(array.transpose(2, 0, 1), np.float32(255), out=out, dtype=np.float32)
    return pixels


def to_pil(pixels: Tensor) -> list[Image.Image]:
    """Canonical pixels as RGB images of Pillow."""
    return [Image.fromarray(array) for array in to_uint8(pixels)]


def from_images(images: Sequence[Image.Image]) -> NDArray[np.uint8]:
    """Images of one size, in any mode, as uint8 `[batch, height, width, 3]`."""
    return np.stack([np.asarray(to_rgb(image)) for image in images])


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright 8-bit RGB from an image of any mode, by the rules in docs/input-formats.md.

    EXIF orientation is applied, transparency is laid over white, 16-bit greys and floats in 0 … 1
    are scaled to 8 bits. Pillow converts palette, CMYK, YCbCr, HSV and LAB. Embedded colour
    profiles are not applied. An upright opaque RGB image is returned unchanged.

    Raises:
        ImageError: The image has no pixels, or their type does not fix the range of values.
    """
    if image.width < 1 or image.height < 1:
        raise ImageError(f"an image of {image.width}×{image.height} has no pixels")
    upright = _upright(image)
    if image.mode in SIXTEEN_BITS:
        return _grey(upright, lambda values: _sixteen_bit_levels(values, image))
    if image.mode == "I":
        return _grey(upright, lambda values: _integer_levels(values, image))
    if image.mode == "F":
        _check_floats(upright)
        return _grey(upright, lambda values: _positive(values, image))
    if upright.has_transparency_data:
        return _over_white(upright)
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The image turned by its EXIF orientation; unchanged if that cannot be read.

    A turned image no longer states an orientation, so that it is turned once.
    """
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
        turn = TURNS.get(orientation)
    except Exception:  # noqa: BLE001  # damaged EXIF raises many kinds of errors
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    for key in ORIENTED:
        turned.info.pop(key, None)
    return turned


def _bands(image: Image.Image) -> Iterator[tuple[int, int]]:
    """First and last + 1 rows of bands of about `BAND` pixels."""
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, min(top + rows, image.height)


def _over_white(image: Image.Image) -> Image.Image:
    """The image without its transparency, on a white background."""
    flat = Image.new("RGB", image.size)
    for top, bottom in _bands(image):
        part = image.crop((0, top, image.width, bottom))
        if part.mode == "La":  # premultiplied; Pillow converts it to nothing else
            part = part.convert("LA")
        colored = part.convert("RGBA")
        ground = Image.new("RGBA", colored.size, (255, 255, 255, 255))
        flat.paste(Image.alpha_composite(ground, colored).convert("RGB"), (0, top))
    return flat


def _grey(
    upright: Image.Image, levels: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Image.Image:
    """The RGB image of grey levels in 0 … 1, rounded to 8 bits.

    Args:
        upright: Image of one channel.
        levels: Function from pixel values to levels, both `[rows, width]`.
    """
    values = np.asarray(upright)
    grey = np.empty(values.shape, np.uint8)
    for top, bottom in _bands(upright):
        band = levels(values[top:bottom].astype(np.float64))
        grey[top:bottom] = (band * 255.0).round().clip(0, 255)
    return Image.fromarray(grey).convert("RGB")


def _sixteen_bit_levels(values: NDArray[np.float64], image: Image.Image) -> NDArray[np.float64]:
    """Levels 0 … 1 of 16-bit pixels, and of 12-bit TIFF files, whose values end at 4095."""
    transparent = image.info.get("transparency")
    levels = _positive(values / float(2 ** _tiff_bits(image, 16) - 1), image)
    if isinstance(transparent, int):
        levels[values == transparent] = 1.0  # white, as other transparency
    return levels


def _integer_levels(values: NDArray[np.float64], image: Image.Image) -> NDArray[np.float64]:
    """Levels 0 … 1 of pixels that Pillow keeps in 32 bits; only PNM and PNG fix their range."""
    if image.format not in ("PPM", "PNG"):  # both hold at most 16 bits, scaled by Pillow to 65535
        raise ImageError("its 32-bit integer pixels have no known range; save it with 8 or 16 bits")
    return values / 65535.0


def _check_floats(upright: Image.Image) -> None:
    """Raises `ImageError` unless all float pixels lie in 0 … 1."""
    values = np.asarray(upright)
    low = float(values.min())
    high = float(values.max())
    if not np.isfinite([low, high]).all():  # a NaN makes both NaN
        raise ImageError("its float pixels are not all finite")
    if low < -SLACK or high > 1 + SLACK:
        raise ImageError(
            f"its float pixels go from {low:.4g} to {high:.4g}; only 0 … 1 has a known meaning"
        )


def _tiff_bits(image: Image.Image, default: int) -> int:
    """Bits of a sample by the tags of a TIFF file; `default` for other files."""
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (default,))
    return int(bits[0]) if isinstance(bits, tuple) and bits else default


def _positive(levels: NDArray[np.float64], image: Image.Image) -> NDArray[np.float64]:
    """The levels, inverted if a TIFF file declares 0 as white; Pillow inverts only 8 bits."""
    white_is_zero = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0
    return 1.0 - levels if white_is_zero else levels


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of uint8 pixels `[height, width, 3]`, whatever the format of their file."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def load_image(path: Path) -> Image.Image:
    """The image of a file as upright RGB; the first frame of an animation.

    Raises:
        ImageError: The file is missing, empty, truncated, not an image, not a regular file, of an
            unknown range of values, or beyond the limits of `ddpo.image_opening`.
    """
    with _one_error(str(path)), opened_file(path) as file:
        return _decoded(file)


def decode_image(data: bytes, name: str) -> Image.Image:
    """The image in the bytes of a file, as `load_image`; messages refer to it as `name`."""
    with _one_error(name):
        return _decoded(BytesIO(data))


def decoded_image(image: Image.Image, name: str) -> Image.Image:
    """An image of Pillow, which may not be read yet, as upright RGB; it is `name` in messages.

    Raises:
        ImageError: As `load_image`.
    """
    with _one_error(name):
        image.load()
        return to_rgb(image)


@contextmanager
def _one_error(name: str) -> Iterator[None]:
    """Turns every exception on an image into ImageError; decoders raise many kinds."""
    try:
        yield
    except Exception as error:
        raise ImageError(f"{printable(name)}: {_reason(error, name)}") from error


def _decoded(file: BinaryIO) -> Image.Image:
    with open_image(file) as image:
        wait_for_room(image.width * image.height)
        image.load()
        rgb = to_rgb(image)
        return rgb.copy() if rgb is image else rgb  # else the decoder's memory stays with it


def _reason(error: Exception, name: str) -> str:
    """The reason why a file could not be decoded, on one line."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        extra = "; HEIC files need pip install 'ddpo[heif]'" if _is_heif(name) else ""
        return f"not an image that can be decoded{extra}"
    if isinstance(error, MemoryError):
        return "decoding it takes more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reason = single_line(str(error)).rstrip(".") or type(error).__name__
    known = isinstance(error, OSError | ImageError | Image.DecompressionBombError)
    return reason if known else f"damaged ({reason})"


def _is_heif(name: str) -> bool:
    return name.lower().endswith(HEIF_SUFFIXES) and not register_heif()


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """The image scaled so that its longer side is `side`, and the other at least one pixel."""
    longer = max(image.size)
    width, height = (max(1, round(length * side / longer)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def save_png(image: Image.Image, path: Path) -> None:
    """Writes a PNG atomically; a contact sheet gets a text chunk that marks it as one.

    Raises:
        StorageFailure: The file cannot be written; an earlier file stays.
    """
    chunks = PngInfo()
    if image.info.get(SHEET_KEY) == SHEET_VALUE:
        chunks.add_text(SHEET_KEY, SHEET_VALUE)
    with storing(path), atomic_path(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=chunks)


def contact_sheet(
    images: Sequence[Image.Image], columns: int, gap: int = 2, background: Any = (255, 255, 255)
) -> Image.Image:
    """The images in rows of `columns`, each cell as large as the largest image.

    Raises:
        ImageError: There is no image.
    """
    if not images:
        raise ImageError("a contact sheet needs at least one image")
    width = max(image.width for image in images)
    height = max(image.height for image in images)
    rows = -(-len(images) // columns)
    sheet = Image.new(
        "RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), background
    )
    for index, image in enumerate(images):
        sheet.paste(image, ((index % columns) * (width + gap), (index // columns) * (height + gap)))
    sheet.info[SHEET_KEY] = SHEET_VALUE
    return sheet
