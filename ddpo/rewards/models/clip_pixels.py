"""CLIP's preprocessing: images resized and cropped by Pillow in threads, normalised together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ddpo.rewards.models.shared_encoders import side_by_side

__all__ = ["MEAN", "SIDE", "STD", "normalised", "not_too_long", "prepared", "preprocess", "square"]

SIDE: Final = 224
LONGEST: Final = 64
"""Longest side in shorter sides. The middle of longer images, which is all that the encoder sees,
is cropped first."""
MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""Source: openai/CLIP, clip.py, the normalisation of its preprocessing."""


def not_too_long(image: Image.Image) -> Image.Image:
    """The middle of an image of an aspect ratio over 64; any other image unchanged."""
    longest = LONGEST * min(image.size)
    if max(image.size) <= longest:
        return image
    return ImageOps.fit(
        image, (min(image.width, longest), min(image.height, longest)), Image.Resampling.NEAREST
    )


def square(
    image: Image.Image, half: Callable[[float], int] = round, resized_to: int = SIDE
) -> NDArray[np.uint8]:
    """CLIP's own framing: PIL bicubic to 224 on the shorter side, then a centre crop.

    Args:
        image: RGB image.
        half: rounding of a margin of half a pixel: `round` in OpenAI's code and open_clip,
            `math.floor` in transformers' processor.
        resized_to: length of the shorter side before the crop; larger for other encoders.

    Returns:
        uint8 `[224, 224, 3]`.

    Source: openai/CLIP, clip.py. Resizing tensors instead moves aesthetic scores by up to 0.08.
    """
    image = not_too_long(image)
    width, height = (resized_to * side // min(image.size) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (half((length - SIDE) / 2) for length in (width, height))
    return np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)))


def normalised(squares: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """Pixels on `device`, normalised by CLIP's mean and standard deviation.

    uint8 `[batch, height, width, 3]` → float32 `[batch, 3, height, width]`.
    """
    pixels = (
        torch.from_numpy(squares)
        .to(device)
        .permute(0, 3, 1, 2)
        .to(torch.float32, memory_format=torch.contiguous_format)
    )
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return pixels.div_(255).sub_(mean).div_(std)


def preprocess(image: Image.Image, half: Callable[[float], int] = round) -> Tensor:
    """One image's `square`, `normalised`: RGB → float32 `[3, 224, 224]`."""
    return normalised(square(image, half)[None].copy())[0]


def prepared(
    images: Sequence[Image.Image],
    device: torch.device | str = "cpu",
    half: Callable[[float], int] = round,
) -> Tensor:
    """`preprocess` of each image, float32 `[batch, 3, 224, 224]` on `device`.

    Several threads frame the images, which move to the device as bytes.
    """
    return normalised(np.stack(side_by_side(lambda image: square(image, half), images)), device)
