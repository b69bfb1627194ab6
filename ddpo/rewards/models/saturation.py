"""Saturation: the mean S of HSV."""

from __future__ import annotations

import torch
from torch import Tensor

from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.luma import each
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Saturation", "mean_saturation"]


def mean_saturation(pixels: Tensor) -> Tensor:
    """Mean over height and width of (max - min) / max of R, G, B; 0 where the pixel is black.

    `[batch, 3, height, width]` in [0, 1] → float64 `[batch]`. Differentiable except where two
    channels are equal.

    Source: Smith, "Color gamut transform pairs", SIGGRAPH 1978, the hexcone model (HSV).
    """
    return each(_saturation, pixels)


def _saturation(image: Tensor) -> Tensor:
    high = image.amax(dim=0).double()
    low = image.amin(dim=0).double()
    return ((high - low) / torch.where(high > 0, high, 1.0)).mean()


class Saturation:
    """Mean HSV saturation: 0 for greys, 1 where every pixel lacks one of the three colours."""

    card = CARDS["saturation"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; gradients flow to `batch.pixels`."""
        return RewardOutput(mean_saturation(batch.pixels).float())
