"""Darkness: minus the mean luma."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ddpo.rewards.catalog import CARDS
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Darkness", "mean_luma"]

BT601: Final = (0.299, 0.587, 0.114)
"""Weights of R, G, B in luma. Source: Recommendation ITU-R BT.601-7, section 2.5.1."""


def mean_luma(pixels: Tensor) -> Tensor:
    """Mean over height and width of 0.299 R + 0.587 G + 0.114 B. `[batch, 3, height, width]` in [0, 1] → float64 `[batch]`.

    Differentiable.
    """
    weights = torch.tensor(BT601, dtype=torch.float64, device=pixels.device)
    return pixels.double().mean(dim=(2, 3)) @ weights


class Darkness:
    """Minus the mean luma: 0 for black, -1 for white."""

    card = CARDS["darkness"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; gradients flow to `batch.pixels`."""
        return RewardOutput((0.0 - mean_luma(batch.pixels)).float())  # not the negation, which would give black the score -0.0
