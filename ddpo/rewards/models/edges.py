"""Edge density: the mean gradient of luma after Sobel."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.luma import each, luma, padded
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["EdgeDensity", "mean_gradient"]

TINY: Final = 1e-300
"""Floor under the root, which has no derivative at 0: below it the gradient is 0, and the root is 0
in float32."""


def mean_gradient(pixels: Tensor) -> Tensor:
    """Mean over height and width of √(gx² + gy²), Sobel's kernels over 8 on luma, edges replicated.

    Over 8, so that a ramp of slope s per pixel has the gradient s. `[batch, 3, height, width]` in
    [0, 1] → float64 `[batch]`. Differentiable; the gradient is 0 where the image is flat.

    Source: Sobel and Feldman, "A 3×3 isotropic gradient operator for image processing", Stanford
    Artificial Intelligence Project (1968).
    """
    return each(_mean_gradient, pixels)


def _mean_gradient(image: Tensor) -> Tensor:
    wide = padded(luma(image))
    down = wide[:-2] + 2.0 * wide[1:-1] + wide[2:]  # smoothed along y
    right = wide[:, :-2] + 2.0 * wide[:, 1:-1] + wide[:, 2:]  # smoothed along x
    square = ((down[:, 2:] - down[:, :-2]).square() + (right[2:] - right[:-2]).square()) / 64.0
    return square.clamp_min(TINY).sqrt().mean()


class EdgeDensity:
    """Mean strength of edges: high for fine, strong detail."""

    card = CARDS["edge_density"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; gradients flow to `batch.pixels`."""
        return RewardOutput(mean_gradient(batch.pixels).float())
