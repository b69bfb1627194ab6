"""Sharpness: the variance of the Laplacian."""

from __future__ import annotations

from torch import Tensor

from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.luma import each, luma, padded
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Sharpness", "laplacian_variance"]


def laplacian_variance(pixels: Tensor) -> Tensor:
    """Variance over all pixels of up + down + left + right - 4 × centre of luma on 0 … 255.

    Edges are replicated. `[batch, 3, height, width]` in [0, 1] → float64 `[batch]`. Differentiable.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000, measure
    LAPV, there with the same kernel times 1/6.
    """
    return each(lambda image: _laplacian(255.0 * luma(image)).var(correction=0), pixels)


def _laplacian(plane: Tensor) -> Tensor:
    wide = padded(plane)
    return wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] - 4.0 * plane


class Sharpness:
    """The variance of the Laplacian: high where luma changes abruptly from pixel to pixel."""

    card = CARDS["sharpness"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; gradients flow to `batch.pixels`."""
        return RewardOutput(laplacian_variance(batch.pixels).float())
