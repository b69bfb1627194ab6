"""Contrast: the standard deviation of luma."""

from __future__ import annotations

from torch import Tensor

from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.luma import each, luma
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Contrast", "rms_contrast"]


def rms_contrast(pixels: Tensor) -> Tensor:
    """The root of the mean over height and width of (luma - mean luma)².

    `[batch, 3, height, width]` in [0, 1] → float64 `[batch]`. Differentiable; the gradient at an
    image of one colour is 0.

    Source: Peli, "Contrast in complex images", J. Opt. Soc. Am. A 7 (1990), root-mean-square
    contrast, here of gamma-encoded luma.
    """
    return each(lambda image: luma(image).std(correction=0), pixels)


class Contrast:
    """Root-mean-square contrast of luma: 0 for one colour, 0.5 for half black, half white."""

    card = CARDS["contrast"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; gradients flow to `batch.pixels`."""
        return RewardOutput(rms_contrast(batch.pixels).float())
