"""Images as Python programs hold them: paths, Pillow images, arrays and tensors, one or many."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from ddpo.errors import ImageError
from ddpo.images import decoded_image, load_image, to_rgb
from ddpo.inputs.address import refuse_address

__all__ = ["pil_images"]

CHANNELS: Final = (1, 3, 4)
SLACK: Final = 1e-3  # beyond [0, 1]: rounding in half precision
FORMS: Final = "a path, a Pillow image, a numpy array or a torch tensor"


def pil_images(images: Any) -> tuple[list[Image.Image], bool]:
    """The images as Pillow images, and True if `images` was a single one.

    Args:
        images: one image, a batch, or an iterable of images. An image is a path, a Pillow image, an
            array `[height, width]` or `[height, width, channel]`, uint8 or float in [0, 1], or a
            tensor `[channel, height, width]`. A batch is an array or a tensor with one more axis
            in front.

    Raises:
        ImageError: an item is none of these, cannot be decoded, or has another range of values.
    """
    if _is_one(images):
        return [_image(images, "the image")], True
    if hasattr(images, "shape"):
        images = list(images)
    elif not isinstance(images, Iterable) or isinstance(images, dict | bytes):
        raise ImageError(f"images must be {FORMS}, or a list of them; got {_kind(images)}")
    return [_image(image, f"image {place}") for place, image in enumerate(images)], False


def _is_one(images: Any) -> bool:
    """True for a single image."""
    if isinstance(images, str | os.PathLike | Image.Image):
        return True
    shape = getattr(images, "shape", None)
    if shape is None:
        return False
    if _is_tensor(images):
        return len(shape) <= 3
    return len(shape) <= 2 or (len(shape) == 3 and shape[-1] in CHANNELS)


def _image(image: Any, name: str) -> Image.Image:
    if isinstance(image, str | os.PathLike):
        refuse_address(image, name)
        return load_image(Path(os.fsdecode(image)).expanduser())
    if isinstance(image, Image.Image):
        return decoded_image(image, name)
    if hasattr(image, "shape"):
        return to_rgb(Image.fromarray(_levels(image, name)))
    raise ImageError(f"{name} must be {FORMS}, got {_kind(image)}")


def _levels(image: Any, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 `[height, width]` or `[height, width, channel]` of an array or tensor."""
    if _is_tensor(image):
        image = image.detach().cpu()
        values = (image.float() if image.is_floating_point() else image).numpy()
        values = values.transpose(1, 2, 0) if values.ndim == 3 else values
    else:
        values = np.asarray(image)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] not in CHANNELS):
        axes = "[channel, height, width]" if _is_tensor(image) else "[height, width, channel]"
        raise ImageError(f"{name} must have the axes {axes}, got the shape {list(image.shape)}")
    if 0 in values.shape:
        raise ImageError(f"{name} has no pixels: its shape is {list(image.shape)}")
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if not np.issubdtype(values.dtype, np.floating):
        raise ImageError(f"{name} must be uint8 or float in [0, 1], got {values.dtype}")
    low = float(values.min())
    high = float(values.max())
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise ImageError(
            f"{name} has floats from {low:.3g} to {high:.3g}; they must be in [0, 1], "
            "so divide levels of 0 … 255 by 255"
        )
    levels: np.ndarray[Any, np.dtype[np.uint8]] = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return levels


def _is_tensor(image: Any) -> bool:
    return type(image).__module__.partition(".")[0] == "torch"


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
