"""What other programs hand to a reward, made into an `ImageBatch`; whatever is not as they promise is refused in one line."""

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

__all__ = ["batch_of_arrays", "batches_of_images", "prompts_of"]

SLACK: Final = 1e-3  # beyond [0, 1]: rounding in bfloat16 decoders, as in ddpo.images.to_uint8


def prompts_of(
    count: int, texts: Sequence[str] | None, metadata: Sequence[Any] | None, card: RewardCard
) -> list[Prompt]:
    """One prompt per picture.

    Args:
        count: of pictures.
        texts: the prompts; None only for a reward that does not read them.
        metadata: one mapping per picture; None or empty for none. Not looked at if the reward does not read it.
        card: of the reward.

    Raises:
        PromptError: too few or too many, not texts, not mappings, or missing though the reward reads them.
    """
    if texts is None:
        if card.needs_prompt:
            raise PromptError(
                f"reward {card.id!r} judges pictures by their prompts: hand it one per picture"
            )
        texts = [""] * count
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise PromptError("prompts must be a sequence of texts, one per picture")
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
                f"the metadata of image {index} is a {type(values).__name__}, not a mapping; reward {card.id!r} reads it"
            )
    return [Prompt(text, values) for text, values in zip(texts, metadata, strict=True)]


def batch_of_arrays(
    images: Any,
    texts: Sequence[str] | None,
    metadata: Sequence[Any] | None,
    card: RewardCard,
    progress: float | None = None,
) -> ImageBatch:
    """The batch of a float tensor `[batch, 3, height, width]` in [0, 1] or a uint8 array `[batch, height, width, 3]`.

    Raises:
        ImageError: another type, shape or range, such as floats on 0 … 255.
        PromptError: as `prompts_of`.
    """
    context = NO_CONTEXT if progress is None else Context(progress)
    if (
        isinstance(images, np.ndarray)
        and images.dtype == np.uint8
        and images.ndim == 4
        and images.shape[-1] == 3
    ):
        return ImageBatch.of_uint8(images, prompts_of(len(images), texts, metadata, card), context)
    if (
        not isinstance(images, Tensor)
        or not images.is_floating_point()
        or images.ndim != 4
        or images.shape[1] != 3
    ):
        shape, kind = (
            list(getattr(images, "shape", ())),
            getattr(images, "dtype", type(images).__name__),
        )
        raise ImageError(
            f"images must be a float tensor [batch, 3, height, width] or a uint8 array [batch, height, width, 3], got {kind} {shape}"
        )
    pixels = images.detach().to(
        device="cpu" if card.device == "cpu" else images.device, dtype=torch.float32
    )
    low, high = (float(bound) for bound in pixels.aminmax()) if pixels.numel() else (0.0, 1.0)
    if not (low >= -SLACK and high <= 1 + SLACK):  # written so that NaN is refused too
        raise ImageError(
            f"float images must be in [0, 1], got {low:.3g} … {high:.3g}: divide 0-255 by 255, clamp what a VAE decodes"
        )
    return ImageBatch(pixels, prompts_of(len(pixels), texts, metadata, card), context)


def batches_of_images(
    images: Sequence[Image.Image], texts: Sequence[str] | None, card: RewardCard
) -> tuple[list[tuple[tuple[int, ...], ImageBatch]], dict[int, str]]:
    """The images of each size as a batch, with their places; any mode becomes upright RGB.

    Returns:
        The batches, and place → reason for each image that cannot become RGB.

    Raises:
        ImageError: something that is not an image, or several sizes for a reward that judges a
            group.
        PromptError: as `prompts_of`.
    """
    prompts = prompts_of(len(images), texts, None, card)
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
            f"reward {card.id!r} judges pictures together, which must then be of one size"
        )
    batches = [
        (
            tuple(chosen),
            ImageBatch.of_images([upright[i] for i in chosen], [prompts[i] for i in chosen]),
        )
        for chosen in places.values()
    ]
    return batches, reasons
