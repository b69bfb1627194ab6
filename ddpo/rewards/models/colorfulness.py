"""Colourfulness after Hasler and Süsstrunk."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ddpo.rewards.cards import CARDS
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Colorfulness", "colorfulness"]


def colorfulness(image: NDArray[np.uint8]) -> float:
    """M = √(σ²_rg + σ²_yb) + 0.3 √(μ²_rg + μ²_yb), rg = R - G, yb = (R + G) / 2 - B on 0 … 255.

    Args:
        image: uint8 `[height, width, 3]`.

    Source: Hasler and Süsstrunk, "Measuring colourfulness in natural images", Proc. SPIE 5007
    (2003), the metric of section 7.
    """
    red, green, blue = np.moveaxis(image.astype(np.float64), -1, 0)
    rg = red - green
    yb = (red + green) / 2 - blue
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


class Colorfulness:
    """Spread and strength of the two opponent colours."""

    card = CARDS["colorfulness"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        scores = [colorfulness(image) for image in batch.uint8]
        return RewardOutput(torch.tensor(scores, dtype=torch.float32))
