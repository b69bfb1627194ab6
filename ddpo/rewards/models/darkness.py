"""Darkness: minus the mean luma."""

from __future__ import annotations

import torch
from torch import Tensor

from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.luma import BT601, each
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Darkness", "mean_luma"]


def mean_luma(pixels: Tensor) -> Tensor:
    """Mean over height and width of 0.299 R + 0.587 G + 0.114 B.

    `[batch, 3, height, width]` in [0, 1] → float64 `[batch]`. Differentiable.
    """
    return each(_mean_luma, pixels)


def _mean_luma(image: Tensor) -> Tensor:
    weights = torch.tensor(BT601, dtype=torch.float64, device=image.device)
    return image.double().mean(dim=(1, 2)) @ weights


class Darkness:
    """Minus the mean luma: 0 for black, -1 for white."""

    card = CARDS["darkness"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; gradients flow to `batch.pixels`."""
        # not the negation, which would give black the score -0.0
        return RewardOutput((0.0 - mean_luma(batch.pixels)).float())
