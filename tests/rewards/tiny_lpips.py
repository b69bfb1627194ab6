"""Random AlexNet and LPIPS weights in the layout of the original files, and images to compare.

The numbers are NumPy's, so they are always the same.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


@cache
def alexnet_state() -> dict[str, torch.Tensor]:
    """torchvision's keys; the classifier, which LPIPS does not use, is of another size."""
    random = np.random.default_rng(1)
    state = {}
    for index, (channels, inputs, kernel) in SHAPES.items():
        scale = np.sqrt(6 / (inputs * kernel**2))
        state[f"features.{index}.weight"] = tensor(
            random.uniform(-scale, scale, (channels, inputs, kernel, kernel))
        )
        state[f"features.{index}.bias"] = tensor(random.uniform(-0.1, 0.1, channels))
    for index in (1, 4, 6):
        state |= {
            f"classifier.{index}.weight": torch.ones(2, 2),
            f"classifier.{index}.bias": torch.ones(2),
        }
    return state


def linear_state() -> dict[str, torch.Tensor]:
    """The keys of the original's weights/v0.1/alex.pth."""
    random = np.random.default_rng(2)
    return {
        f"lin{layer}.model.1.weight": tensor(random.uniform(0, 0.3, (1, channels, 1, 1)))
        for layer, (channels, _, _) in enumerate(SHAPES.values())
    }


def tensor(array: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))


def noise_images(count: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Blocks of noise of different grain, uint8 `[count, height, width, 3]`."""
    random = np.random.default_rng(3)
    images = []
    for number in range(count):
        grain = 2 ** (number % 4)
        coarse = random.integers(0, 256, (-(-size[0] // grain), -(-size[1] // grain), 3)).astype(
            np.uint8
        )
        images.append(coarse.repeat(grain, 0).repeat(grain, 1)[: size[0], : size[1]])
    return np.stack(images)
