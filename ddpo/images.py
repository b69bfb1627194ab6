"""The only home of pixel conventions: ×255 and rounding, NCHW and NHWC, PIL, PNG, EXIF orientation, transparency.

The canonical form is float32 `[batch, 3, height, width]` in [0, 1], sRGB. uint8 is made by rounding, in `to_uint8` alone.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ddpo.errors import ImageError
from ddpo.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ImageFiles",
    "contact_sheet",
    "find_images",
    "from_images",
    "from_uint8",
    "load_image",
    "save_png",
    "to_pil",
    "to_rgb",
    "to_uint8",
]

OPENING: Final = Lock()
SHEET_KEY: Final = "ddpo"
SHEET_VALUE: Final = "contact sheet"
"""The text chunk of a PNG that shows many images and is none of them."""
ORIENTATION: Final = 0x0112  # of EXIF
SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def to_uint8(pixels: Tensor) -> NDArray[np.uint8]:
    """Canonical pixels as uint8 `[batch, height, width, 3]`, rounded to the nearest level (never truncated).

    Raises:
        ImageError: a value is NaN or outside [0, 1] by more than rounding error, such as pixels on a 0-255 scale.
    """
    import torch

    pixels = pixels.detach()
    count, _, height, width = pixels.shape
    result = torch.empty((count, height, width, 3), dtype=torch.uint8)
    for index, picture in enumerate(pixels):  # one at a time stays in the processor's cache: many times as fast as 16 of 512×512
        low, high = (float(bound) for bound in picture.aminmax()) if picture.numel() else (0.0, 1.0)
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ImageError(f"pixels must be in [0, 1], got {low:.3g} … {high:.3g} in image {index}")
        result[index] = (picture.float() * 255.0).round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0)
    array: NDArray[np.uint8] = result.numpy()
    return array


def from_uint8(array: NDArray[np.uint8]) -> Tensor:
    """uint8 `[batch, height, width, 3]` as canonical pixels.

    Raises:
        ImageError: another type or shape.
    """
    import torch

    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
        raise ImageError(f"expected uint8 [batch, height, width, 3], got {array.dtype} {list(array.shape)}")
    count, height, width, _ = array.shape
    pixels = np.empty((count, 3, height, width), np.float32)
    for index in range(count):  # as in `to_uint8`: twice as fast as a whole batch
        np.divide(array[index].transpose(2, 0, 1), np.float32(255), out=pixels[index], dtype=np.float32)
    return torch.from_numpy(pixels)


def to_pil(pixels: Tensor) -> list[Image.Image]:
    """Canonical pixels as RGB pictures."""
    return [Image.fromarray(array) for array in to_uint8(pixels)]


def from_images(images: Sequence[Image.Image]) -> NDArray[np.uint8]:
    """Pictures of one size, of any mode, as uint8 `[batch, height, width, 3]`."""
    return np.stack([np.asarray(to_rgb(image)) for image in images])


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright 8-bit RGB: EXIF orientation applied, transparency laid over white, 16-bit greys scaled to 8 bits.

    The picture itself, if that is what it is already.
    """
    upright = image if image.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    if upright.mode in ("I;16", "I;16B", "I;16L", "I"):
        upright = Image.fromarray((np.asarray(upright).astype(np.float64) / 257.0).round().clip(0, 255).astype(np.uint8))
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        colored = upright.convert("RGBA")
        ground = Image.new("RGBA", colored.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(ground, colored)
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def load_image(path: Path) -> Image.Image:
    """The picture of a file as upright RGB.

    Raises:
        ImageError: missing, empty, cut short, not a picture, or so large that it looks like a decompression bomb.
    """
    try:
        with _opened(path) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise ImageError(f"{path}: {image.width}×{image.height} pixels; so large a picture may be a decompression bomb")
            image.load()
            return to_rgb(image)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        reason = "not a picture that can be decoded" if isinstance(error, UnidentifiedImageError) else str(error).rstrip(".")
        raise ImageError(f"{path}: {reason}") from error


def _opened(path: Path) -> Image.Image:
    with OPENING, warnings.catch_warnings():  # which is not thread-safe by itself
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # load_image says it in its own words
        return Image.open(path)


class ImageFiles:
    """The picture files among `places`, in their order; a folder stands for the pictures below it, sorted by path.

    Folders are read anew in each iteration, so that the names of only one are in memory.

    Raises:
        ImageError: a place does not exist, or a folder holds no picture.
    """

    def __init__(self, places: Iterable[Path]) -> None:
        self._places = [str(place) for place in places]
        counts = []
        for place in self._places:
            if not os.path.exists(place):
                raise ImageError(f"{place}: no such file or folder")
            counts.append(sum(1 for _ in _below(place)))
            if not counts[-1]:
                raise ImageError(f"{place} holds no pictures ({', '.join(SUFFIXES)})")
        self._count = sum(counts)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        for place in self._places:
            yield from _below(place)


def _below(place: str) -> Iterator[str]:
    if not os.path.isdir(place):
        yield place
        return
    names: list[str] = []
    folders: set[str] = set()
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.add(entry.name)
            elif not entry.name.lower().endswith(SUFFIXES) or not entry.is_file():
                continue
            names.append(entry.name)
    for name in sorted(names):
        path = os.path.join(place, name)
        if name in folders:
            yield from _below(path)
        else:
            yield path


def find_images(places: Iterable[Path]) -> list[Path]:
    """As `ImageFiles`, in a list."""
    return [Path(file) for file in ImageFiles(places)]


def save_png(image: Image.Image, path: Path) -> None:
    """Writes a PNG atomically; a contact sheet with a text chunk by which readers of images leave it out."""
    chunks = PngInfo()
    if image.info.get(SHEET_KEY) == SHEET_VALUE:
        chunks.add_text(SHEET_KEY, SHEET_VALUE)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=chunks)


def contact_sheet(images: Sequence[Image.Image], columns: int, gap: int = 2, background: Any = (255, 255, 255)) -> Image.Image:
    """The pictures in rows of `columns`, all cells as large as the largest picture.

    Raises:
        ImageError: there is no picture.
    """
    if not images:
        raise ImageError("a contact sheet needs at least one picture")
    width, height = max(i.width for i in images), max(i.height for i in images)
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), background)
    for index, image in enumerate(images):
        sheet.paste(image, ((index % columns) * (width + gap), (index // columns) * (height + gap)))
    sheet.info[SHEET_KEY] = SHEET_VALUE
    return sheet
