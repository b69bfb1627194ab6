"""The checked inputs of other programs as an `ImageBatch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpo.errors import ImageError, PromptError
from ddpo.images import to_rgb
from ddpo.rewards.card import RewardCard
from ddpo.types import NO_CONTEXT, Context, ImageBatch, Prompt

__all__ = ["batch_of_arrays", "batches_of_images", "is_batch", "prompts_of"]

SLACK: Final = 1e-3  # beyond [0, 1]: rounding in bfloat16 decoders, as in ddpo.images.to_uint8


def prompts_of(
    count: int, texts: Sequence[str] | None, metadata: Sequence[Any] | None, card: RewardCard
) -> list[Prompt]:
    """One prompt per image.

    Args:
        count: Number of images.
        texts: Texts of the prompts; None only for a reward that does not read them.
        metadata: One mapping per image; None or empty for none. Ignored if the reward does not
            read it.
        card: Card of the reward.

    Raises:
        PromptError: There are too few or too many, they have a wrong type, or texts are missing
            although the reward reads them.
    """
    if texts is None:
        if card.needs_prompt:
            raise PromptError(
                f"reward {card.id!r} judges images by their prompts: pass one prompt per image"
            )
        texts = [""] * count
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise PromptError("prompts must be a sequence of texts, one per image")
    if len(texts) != count:
        raise PromptError(f"{count} images came with {len(texts)} prompts")
    if metadata is None or len(metadata) == 0:
        metadata = [{}] * count
    if len(metadata) != count:
        raise PromptError(f"{count} images came with {len(metadata)} metadata")
    if "metadata" not in card.inputs:
        return [Prompt(text) for text in texts]
    for index, values in enumerate(metadata):
        if not isinstance(values, Mapping):
            raise PromptError(
                f"the metadata of image {index} is a {type(values).__name__}, not a mapping; "
                f"reward {card.id!r} reads it"
            )
    return [Prompt(text, values) for text, values in zip(texts, metadata, strict=True)]


def batch_of_arrays(
    images: Any,
    texts: Sequence[str] | None,
    metadata: Sequence[Any] | None,
    card: RewardCard,
    progress: float | None = None,
) -> ImageBatch:
    """The batch of a tensor or an array of images.

    Args:
        images: Float tensor `[batch, 3, height, width]` in [0, 1], or uint8 array
            `[batch, height, width, 3]`.
        texts: As in `prompts_of`.
        metadata: As in `prompts_of`.
        card: Card of the reward.
        progress: Share of the training that is done; None outside training.

    Raises:
        ImageError: The images have another type, shape or range, such as floats in 0 … 255.
        PromptError: As `prompts_of`.
    """
    context = NO_CONTEXT if progress is None else Context(progress)
    if _is_uint8_array(images):
        return ImageBatch.of_uint8(images, prompts_of(len(images), texts, metadata, card), context)
    if not _is_float_tensor(images):
        shape = list(getattr(images, "shape", ()))
        kind = getattr(images, "dtype", type(images).__name__)
        raise ImageError(
            "images must be a float tensor [batch, 3, height, width] or a uint8 array "
            f"[batch, height, width, 3], got {kind} {shape}"
        )
    device = "cpu" if card.device == "cpu" else images.device
    pixels = images.detach().to(device=device, dtype=torch.float32)
    low, high = (float(bound) for bound in pixels.aminmax()) if pixels.numel() else (0.0, 1.0)
    if not (low >= -SLACK and high <= 1 + SLACK):  # written so that NaN is refused too
        raise ImageError(
            f"float images must be in [0, 1], got {low:.3g} … {high:.3g}: "
            "divide 0-255 by 255, clamp the output of a VAE"
        )
    return ImageBatch(pixels, prompts_of(len(pixels), texts, metadata, card), context)


def is_batch(images: Any) -> bool:
    """True for arrays and tensors that `batch_of_arrays` takes."""
    return _is_uint8_array(images) or _is_float_tensor(images)


def _is_uint8_array(images: Any) -> bool:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        return False
    return images.ndim == 4 and images.shape[-1] == 3


def _is_float_tensor(images: Any) -> bool:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        return False
    return images.ndim == 4 and images.shape[1] == 3


def batches_of_images(
    images: Sequence[Image.Image],
    texts: Sequence[str] | None,
    card: RewardCard,
    metadata: Sequence[Any] | None = None,
) -> tuple[list[tuple[tuple[int, ...], ImageBatch]], dict[int, str]]:
    """The images of each size as a batch, converted to upright RGB.

    Args:
        images: PIL images of any mode and size.
        texts: As in `prompts_of`.
        card: Card of the reward.
        metadata: As in `prompts_of`.

    Returns:
        The batches with the places of their images, and place → reason for each image that cannot
        become RGB.

    Raises:
        ImageError: An item is not an image, or sizes differ for a reward that judges a group.
        PromptError: As `prompts_of`.
    """
    prompts = prompts_of(len(images), texts, metadata, card)
    upright: dict[int, Image.Image] = {}
    reasons: dict[int, str] = {}
    for index, image in enumerate(images):
        if not isinstance(image, Image.Image):
            raise ImageError(f"image {index} is a {type(image).__name__}, not a PIL image")
        try:
            upright[index] = to_rgb(image)
        except ImageError as error:
            reasons[index] = str(error)
    places: dict[tuple[int, int], list[int]] = {}
    for index, image in upright.items():
        places.setdefault(image.size, []).append(index)
    if len(places) > 1 and "group" in card.inputs:
        raise ImageError(
            f"reward {card.id!r} judges images together, which must then have one size"
        )
    batches = [
        (
            tuple(chosen),
            ImageBatch.of_images([upright[i] for i in chosen], [prompts[i] for i in chosen]),
        )
        for chosen in places.values()
    ]
    return batches, reasons
