"""Pillow's bicubic resizing as a matrix, for batches that stay tensors."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["resized", "resizing_matrix"]


@cache
def resizing_matrix(old: int, new: int) -> Tensor:
    """Bicubic resizing of `old` values to `new` ones, float32 `[new, old]`."""
    columns = []
    for place in range(old):
        line = np.zeros((old, 1), dtype=np.float32)
        line[place] = 1
        resized_line = Image.fromarray(line).resize((1, new), Image.Resampling.BICUBIC)
        columns.append(np.asarray(resized_line)[:, 0])
    return torch.from_numpy(np.stack(columns, 1))


def resized(pixels: Tensor, side: int) -> Tensor:
    """Square images `[batch, 3, side, side]` in [0, 1] of another side, not rounded to bytes."""
    matrix = resizing_matrix(pixels.shape[-1], side)
    return (matrix @ pixels @ matrix.T).clamp(0, 1)
