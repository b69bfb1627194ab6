"""JPEG size in kB of 1000 bytes as a reward: `incompressibility`; minus it: `compressibility`."""

from __future__ import annotations

import io
import os
import threading
from typing import Final

import torch
from PIL import Image

from ddpo.rewards.cards import CARDS
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["Compressibility", "Incompressibility", "jpeg_bytes"]

QUALITY: Final = 95  # arXiv 2305.13301 and ddpo-pytorch, rewards.py
SUBSAMPLING_420: Final = 2
"""Pillow's number for 4:2:0, stated so that another default cannot move the score."""

_of_thread = threading.local()


def jpeg_bytes(image: Image.Image) -> int:
    """Length in bytes of the JPEG file of an RGB image."""
    file = _scratch_file()
    file.seek(0)
    image.save(file, format="JPEG", quality=QUALITY, subsampling=SUBSAMPLING_420)
    return file.tell()


class _Scratch(io.FileIO):
    """A file that is closed when its thread ends, without a ResourceWarning."""

    def __del__(self) -> None:
        self.close()


def _scratch_file() -> io.FileIO | io.BytesIO:
    """The file in memory of this thread.

    Pillow's encoder lets other threads run while it writes to a descriptor, not to BytesIO.
    """
    file: io.FileIO | io.BytesIO | None = getattr(_of_thread, "file", None)
    if file is None:
        in_memory = hasattr(os, "memfd_create")  # Linux
        file = _Scratch(os.memfd_create("ddpo-jpeg"), "wb") if in_memory else io.BytesIO()
        _of_thread.file = file
    return file


def _sizes_kb(batch: ImageBatch) -> torch.Tensor:
    # One at a time: an image just made from bytes or floats is still in the processor's cache.
    return torch.tensor(
        [jpeg_bytes(batch[i : i + 1].images[0]) / 1000 for i in range(len(batch))],
        dtype=torch.float32,
    )


class Compressibility:
    """Minus the JPEG size in kB: plain, smooth images score high."""

    card = CARDS["compressibility"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        return RewardOutput(-_sizes_kb(batch))


class Incompressibility:
    """The JPEG size in kB: busy, noisy images score high."""

    card = CARDS["incompressibility"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`."""
        return RewardOutput(_sizes_kb(batch))
