"""How `mylab/function` scores: a function from pictures to one number each."""

import numpy as np

from ddpo.rewards.function import FunctionReward
from mylab_function.cards import CARD


def brightness(images: np.ndarray, gamma: float = 1.0) -> list[float]:
    """The mean level of each picture of uint8 `[batch, height, width, 3]`. To judge prompts too, take `(images, prompts, ...)`."""
    return [float(np.mean((picture / 255.0) ** gamma)) for picture in images]


def make(gamma: float = 1.0) -> FunctionReward:
    """The reward, from the options on its card."""
    return FunctionReward(brightness, CARD, {"gamma": gamma})
