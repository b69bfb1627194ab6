"""Two rewards of your own in one file: a function, and a class with a card.

    ddpo rewards score ./examples/reward_plugin/my_reward.py:redness IMAGES
    ddpo train --reward ./examples/reward_plugin/my_reward.py:MyReward

To share a reward, put its card into a package and name it in the entry-point group `ddpo.rewards`,
as in `tests/plugin_package`.
"""

import numpy as np
import torch

from ddpo.rewards.card import RewardCard, RewardOption
from ddpo.types import ImageBatch, RewardOutput


def redness(images: np.ndarray, threshold: float = 32.0) -> list[float]:
    """Share of pixels whose red is above green and blue by more than `threshold`."""
    red = images[..., 0].astype(float)
    others = images[..., 1:].max(axis=-1)
    return [float(share) for share in (red - others > threshold).mean(axis=(1, 2))]


class MyReward:
    """Contrast: standard deviation of the grey values."""

    card = RewardCard(
        id="my_contrast",
        version="1",
        summary="standard deviation of grey values",
        load="my_reward:MyReward",
        family="pixels",
        flaws="black and white noise is the optimum",
        unit="grey levels in [0, 1]",
        range=(0.0, 0.5),
        pixels="float",
        dtype="float32",
        differentiable=True,
        device="any",
        options=(RewardOption("gain", 1.0, "the score is multiplied by it"),),
    )

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """One score per image, in order."""
        grey = batch.pixels.mean(dim=1).flatten(start_dim=1)
        values: torch.Tensor = self.gain * grey.std(dim=1, unbiased=False)
        return RewardOutput(values)
