"""Entropy of the luma histogram: high where the grey levels are used evenly."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ddpo.rewards.cards import CARDS
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Entropy", "histogram_entropy"]


def histogram_entropy(image: NDArray[np.uint8]) -> float:
    """-Σ p log₂ p over the 256 levels of rounded BT.601 luma, in bits.

    Args:
        image: uint8 `[height, width, 3]`.

    Source: Shannon, "A mathematical theory of communication", Bell System Technical Journal 27
    (1948), of the histogram.
    """
    counts = np.array(Image.fromarray(image).convert("L").histogram(), dtype=np.float64)
    shares = counts[counts > 0] / counts.sum()
    return float((shares * np.log2(1.0 / shares)).sum())


class Entropy:
    """Shannon entropy of the luma histogram: 0 for one level, 8 bits for 256 equally common."""

    card = CARDS["entropy"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        return RewardOutput(
            torch.tensor([histogram_entropy(image) for image in batch.uint8], dtype=torch.float32)
        )
