"""The optimizer of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch.nn import Parameter

from ddpo.trainer.config import TrainConfig
from ddpo.trainer.low_memory import small_moments

__all__ = ["make_optimizer"]

FUSED: Final = ("cuda", "xpu", "mps")
"""Kinds of devices on which torch takes AdamW's step in one kernel.

The CPU has such a kernel too, but its bits differ from those of the plain step.
"""


def make_optimizer(
    parameters: Iterable[Parameter], config: TrainConfig, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW, fused on an accelerator or with 8-bit moments (arXiv 2110.02861).

    Args:
        parameters: trained parameters.
        config: settings of the run.
        device: torch device of the parameters.
    """
    optim = config.optim
    numbers: dict[str, Any] = {
        "lr": optim.lr,
        "betas": (optim.beta1, optim.beta2),
        "eps": optim.eps,
        "weight_decay": optim.weight_decay,
    }
    if small_moments(config, device):
        from bitsandbytes.optim import AdamW8bit

        small: torch.optim.Optimizer = AdamW8bit(parameters, **numbers)
        return small
    return torch.optim.AdamW(parameters, **numbers, fused=True if device.type in FUSED else None)
