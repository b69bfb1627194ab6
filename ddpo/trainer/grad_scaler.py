"""The factor that keeps float16 gradients from vanishing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor
from torch.nn import Parameter

__all__ = ["GradScaler"]

FIRST: Final = 65536.0
PATIENCE: Final = 2000
"""Updates without overflow before the factor is doubled. Source of both: the defaults of torch.amp.GradScaler."""


class GradScaler:
    """A power of two by which losses are multiplied, and gradients divided again: exact, unless a float16 between them under- or overflows.

    An update whose gradients overflow is not taken, and the factor halved for the next. Source: arXiv 1710.03740, section 3.2.

    Args:
        needed: whether gradients pass through float16; else the factor is 1, always.
    """

    def __init__(self, needed: bool) -> None:
        self.value, self.fine = (FIRST if needed else 1.0), 0

    def unscale(self, parameters: Iterable[Parameter]) -> None:
        """Divides the gradients, in place."""
        for parameter in parameters:
            if self.value != 1 and parameter.grad is not None:
                parameter.grad /= self.value

    def judge(self, finite: bool) -> bool:
        """Told whether the gradients of an update were finite, says whether that can be lived with: taken, or left out and scaled less."""
        if self.value == 1 and not finite:
            return False
        self.fine = self.fine + 1 if finite else 0
        if not finite:
            self.value /= 2
        elif self.fine == PATIENCE and self.value != 1:
            self.value, self.fine = self.value * 2, 0
        return True

    def state(self) -> Tensor:
        """What is kept for an exact resume: float64 `[2]`."""
        return torch.tensor([self.value, self.fine], dtype=torch.float64)

    def load_state(self, state: Tensor) -> None:
        """Puts back what `state` gave."""
        value, fine = state.tolist()
        self.value, self.fine = value, int(fine)
