"""Helpers of the rewards on float pixels: luma, padding, and a measure over a batch."""

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
    """0.299 R + 0.587 G + 0.114 B: `[3, height, width]` → float64 `[height, width]` in [0, 1].

    Differentiable.
    """
    weights = torch.tensor(BT601, dtype=torch.float64, device=image.device)
    plane: Tensor = torch.tensordot(weights, image.double(), dims=1)
    return plane


def padded(plane: Tensor) -> Tensor:
    """The plane with its edges replicated by one pixel: `[height + 2, width + 2]`.

    Unlike reflection, replication is defined for a side of one pixel and adds no edge.
    """
    return torch.nn.functional.pad(plane[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]


def each(measure: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """`measure` of every image: `[batch, 3, height, width]` → float64 `[batch]`.

    One image at a time: a reduction over a batch may sum in an order that depends on its size, and
    a score would depend on its batch mates. It also keeps the float64 copy small.
    """
    values = [measure(for_float64(image)) for image in pixels]
    return torch.stack(values) if values else torch.zeros(0, dtype=torch.float64)
