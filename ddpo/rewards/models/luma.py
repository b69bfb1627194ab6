"""Luma, and how a measure of one image becomes scores of a batch: what the rewards on float pixels share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from ddpo.devices import for_float64

__all__ = ["BT601", "each", "luma", "padded"]

BT601: Final = (0.299, 0.587, 0.114)
"""Weights of R, G, B in luma. Source: Recommendation ITU-R BT.601-7, section 2.5.1."""


def luma(image: Tensor) -> Tensor:
    """0.299 R + 0.587 G + 0.114 B. `[3, height, width]` in [0, 1] → float64 `[height, width]` in [0, 1]. Differentiable."""
    weights = torch.tensor(BT601, dtype=torch.float64, device=image.device)
    plane: Tensor = torch.tensordot(weights, image.double(), dims=1)
    return plane


def padded(plane: Tensor) -> Tensor:
    """`[height, width]` with one pixel more on every side, the same as its neighbour inside: `[height + 2, width + 2]`.

    Unlike reflection it is defined for a side of one pixel, and it makes no edge that is not in the image.
    """
    return torch.nn.functional.pad(plane[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]


def each(measure: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """`measure` of every image: `[batch, 3, height, width]` → float64 `[batch]`.

    One image at a time: a reduction over the whole batch may be summed in another order for another batch size, which would let a
    score depend on its batch mates; and the float64 copy is of one image, not of all.
    """
    values = [measure(for_float64(image)) for image in pixels]
    return torch.stack(values) if values else torch.zeros(0, dtype=torch.float64)
