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
"""Updates without overflow before the factor doubles. Source of both: torch.amp.GradScaler."""


class GradScaler:
    """A power of two by which losses are multiplied and gradients divided again.

    That is exact, unless a float16 between them under- or overflows. An update whose gradients
    overflow is not taken, and the factor is halved for the next. Source: arXiv 1710.03740,
    section 3.2.

    Args:
        needed: True if gradients pass through float16; otherwise the factor is always 1.
    """

    def __init__(self, needed: bool) -> None:
        self.value = FIRST if needed else 1.0
        self.fine = 0  # updates since the last overflow or change

    def unscale(self, parameters: Iterable[Parameter]) -> None:
        """Divides the gradients by the factor, in place."""
        for parameter in parameters:
            if self.value != 1 and parameter.grad is not None:
                parameter.grad /= self.value

    def adjust(self, finite: bool) -> bool:
        """Adjusts the factor after an update; False if a smaller one would not help.

        Args:
            finite: True if all gradients of the update were finite.
        """
        if self.value == 1 and not finite:
            return False
        self.fine = self.fine + 1 if finite else 0
        if not finite:
            self.value /= 2
        elif self.fine == PATIENCE and self.value != 1:
            self.value *= 2
            self.fine = 0
        return True

    def state(self) -> Tensor:
        """The state that an exact resume needs: float64 `[2]`."""
        return torch.tensor([self.value, self.fine], dtype=torch.float64)

    def load_state(self, state: Tensor) -> None:
        """Restores what `state` returned."""
        value, fine = state.tolist()
        self.value = value
        self.fine = int(fine)
