"""The optimizer of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch
from torch.nn import Parameter

from ddpo.trainer.config import OptimConfig

__all__ = ["make_optimizer"]

FUSED: Final = ("cuda", "xpu", "mps")
"""Kinds of devices on which torch takes AdamW's step in one kernel. The CPU has one too, whose bits differ from the plain step's."""


def make_optimizer(parameters: Iterable[Parameter], settings: OptimConfig, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over `parameters`, which lie on `device`; fused on an accelerator."""
    return torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True if device.type in FUSED else None,
    )
