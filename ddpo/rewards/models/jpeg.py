"""JPEG size as a reward: `compressibility` (minus the size) and `incompressibility` (the size), in kB of 1000 bytes."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ddpo.images import to_uint8
from ddpo.rewards.catalog import CARDS
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Compressibility", "Incompressibility", "jpeg_bytes"]

QUALITY: Final = 95  # arXiv 2305.13301 and ddpo-pytorch, rewards.py
SUBSAMPLING_420: Final = 2  # Pillow's number for 4:2:0, stated so that another default cannot move the score


def jpeg_bytes(picture: NDArray[np.uint8]) -> int:
    """Length in bytes of the JPEG file of a uint8 `[height, width, 3]` picture."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=QUALITY, subsampling=SUBSAMPLING_420)
    return file.tell()


def _sizes_kb(batch: ImageBatch) -> torch.Tensor:
    # One picture at a time: converting a whole batch of 512×512 first takes more than twice as long, for lack of cache.
    sizes = [jpeg_bytes(to_uint8(batch.pixels[i : i + 1])[0]) / 1000 for i in range(len(batch))]
    return torch.tensor(sizes, dtype=torch.float32)


class Compressibility:
    """Minus the JPEG size in kB: plain, smooth pictures score high."""

    card = CARDS["compressibility"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        return RewardOutput(-_sizes_kb(batch))


class Incompressibility:
    """The JPEG size in kB: busy, noisy pictures score high."""

    card = CARDS["incompressibility"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        return RewardOutput(_sizes_kb(batch))
