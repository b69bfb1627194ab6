"""The denoiser's outputs under the policy that sampled, for the items of an iteration."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["OldOutputs"]


class OldOutputs:
    """The outputs of items, kept in float32 and found by image and step.

    Args:
        items: number of items of this process in the iteration.
        images: number of its images.
        steps: number of denoising steps.
        shape: shape of one output.
        device: device of the outputs.
    """

    def __init__(
        self, items: int, images: int, steps: int, shape: tuple[int, ...], device: torch.device
    ) -> None:
        # an item that joins the calls of other processes finds a row without any item too
        self._outputs = torch.zeros((max(items, 1), *shape), device=device)
        self._rows = torch.zeros((images, steps), dtype=torch.int64, device=device)
        self._count = 0

    def keep(self, outputs: Tensor, images: Tensor, steps: Tensor) -> None:
        """Keeps outputs `[items, …]` of steps `[items]` of images `[items]`."""
        end = self._count + len(outputs)
        self._outputs[self._count : end] = outputs
        self._rows[images, steps] = torch.arange(self._count, end, device=images.device)
        self._count = end

    def of(self, images: Tensor, steps: Tensor) -> Tensor:
        """The outputs of steps `[items]` of images `[items]`, `[items, …]`."""
        return self._outputs[self._rows[images, steps]]
