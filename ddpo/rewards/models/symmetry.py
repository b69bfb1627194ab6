"""Left-right mirror symmetry."""

from __future__ import annotations

from torch import Tensor

from ddpo.rewards.catalog import CARDS
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Symmetry", "mirror_error"]


def mirror_error(pixels: Tensor) -> Tensor:
    """Mean over channel, height and width of (x - mirror(x))². `[batch, 3, height, width]` in [0, 1] → float64 `[batch]`.

    Differentiable. The mirror reward of the original DDPO code is this on uint8, where differences wrap around at 256; not here.
    """
    exact = pixels.double()
    return (exact - exact.flip(-1)).square().mean(dim=(1, 2, 3))


class Symmetry:
    """Minus the mirror error: 0 for a picture that equals its mirror image."""

    card = CARDS["symmetry"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; gradients flow to `batch.pixels`."""
        return RewardOutput((0.0 - mirror_error(batch.pixels)).float())  # not the negation, whose best score would be -0.0
