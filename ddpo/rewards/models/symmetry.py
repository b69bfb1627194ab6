"""Symmetry of left and right (`symmetry`) and under rotation by 180° (`rotation_symmetry`)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.luma import each
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["RotationSymmetry", "Symmetry", "mirror_error", "rotation_error"]

BLOCK_PIXELS: Final = 1 << 21
"""Pixels whose float64 copies are in memory at a time; an image of 1,448 × 1,448 is one block."""


def mirror_error(pixels: Tensor) -> Tensor:
    """Mean over channel, height and width of (x - mirror(x))².

    `[batch, 3, height, width]` in [0, 1] → float64 `[batch]`. Differentiable. The mirror reward of
    the original DDPO code computes this on uint8, where differences wrap around at 256.
    """
    return _flip_error(pixels, (-1,))


def rotation_error(pixels: Tensor) -> Tensor:
    """Mean over channel, height and width of (x - x rotated by 180°)².

    `[batch, 3, height, width]` in [0, 1] → float64 `[batch]`. Differentiable. 180° is the only
    rotation that maps an image of any height and width onto itself.
    """
    return _flip_error(pixels, (-2, -1))


def _flip_error(pixels: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The mean squared difference to the image flipped along axes, of which the width is one."""

    def error(image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        columns = max(1, BLOCK_PIXELS // height)
        sums = []
        for left in range(0, width, columns):
            count = min(columns, width - left)
            block = image.narrow(-1, left, count).double()
            opposite = image.narrow(-1, width - left - count, count).double()
            sums.append((block - opposite.flip(axes)).square().sum())
        return torch.stack(sums).sum() / image.numel()

    return each(error, pixels)


class Symmetry:
    """Minus the mirror error: 0 for an image that equals its mirror image."""

    card = CARDS["symmetry"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; gradients flow to `batch.pixels`."""
        # not the negation, whose best score would be -0.0
        return RewardOutput((0.0 - mirror_error(batch.pixels)).float())


class RotationSymmetry:
    """Minus the rotation error: 0 for an image that looks the same upside down."""

    card = CARDS["rotation_symmetry"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; gradients flow to `batch.pixels`."""
        return RewardOutput((0.0 - rotation_error(batch.pixels)).float())
