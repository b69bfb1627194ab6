"""Sharpness: variance of the four-neighbour Laplacian of the BT.601 luma, edges mirrored."""

import numpy as np
import torch

from ddpo.images import to_uint8
from ddpo.types import ImageBatch, RewardOutput
from ddpo_test_plugin.cards import SHARPNESS


def sharpness(image: np.ndarray) -> float:
    """The sharpness of a uint8 `[height, width, 3]` image, in squared grey levels."""
    luma = np.pad(image @ np.array([0.299, 0.587, 0.114]), 1, mode="reflect")
    laplacian = (
        luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    )
    return float(laplacian.var())


class Sharpness:
    """Rewards edges and noise."""

    card = SHARPNESS

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        scores = [self.scale * sharpness(image) for image in to_uint8(batch.pixels)]
        return RewardOutput(torch.tensor(scores, dtype=torch.float32))
