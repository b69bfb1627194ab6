"""What CLIP's encoders see of an image: resized and cut out by Pillow, several images at once, and normalised in one piece."""

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
LONGEST: Final = 64  # times the shorter side; of longer images the middle, which is all that is seen, is cut out first
MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""Source: openai/CLIP, clip.py, the normalisation of its preprocessing."""


def not_too_long(image: Image.Image) -> Image.Image:
    """The middle of an image that is more than 64 times as long as wide; any other image as it is."""
    longest = LONGEST * min(image.size)
    if max(image.size) <= longest:
        return image
    return ImageOps.fit(
        image, (min(image.width, longest), min(image.height, longest)), Image.Resampling.NEAREST
    )


def square(
    image: Image.Image, half: Callable[[float], int] = round, resized_to: int = SIDE
) -> NDArray[np.uint8]:
    """CLIP's own framing: PIL bicubic to 224 on the shorter side, centre crop. RGB → uint8 `[224, 224, 3]`.

    Args:
        image: RGB.
        half: makes a margin of half a pixel whole; `round` in OpenAI's code and open_clip, `math.floor` in transformers' processor.
        resized_to: length of the shorter side before 224 are cut out; other encoders have more than CLIP's.

    Source: openai/CLIP, clip.py. Resizing tensors instead moves aesthetic scores by up to 0.08.
    """
    image = not_too_long(image)
    width, height = (resized_to * side // min(image.size) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = half((width - SIDE) / 2), half((height - SIDE) / 2)
    return np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)))


def normalised(squares: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """uint8 `[batch, height, width, 3]` → float32 `[batch, 3, height, width]` on `device`, with CLIP's mean 0 and deviation 1."""
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
    """As `preprocess` for each, framed by several threads and moved to `device` as bytes: float32 `[batch, 3, 224, 224]`."""
    return normalised(np.stack(side_by_side(lambda image: square(image, half), images)), device)
