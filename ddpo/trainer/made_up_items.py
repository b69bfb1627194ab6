"""Items with given log-likelihoods, made up without a model, for the checks of an algorithm."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

import torch
from torch import Tensor

from ddpo.trainer.items import Items, StepItems

__all__ = ["made_up_items"]

NOISE: Final = 2.0  # z of every step
FACTOR: Final = -0.2  # b of every step


def made_up_items(kind: str, needs: Collection[str] | None, new: Tensor, old: Tensor) -> Items:
    """Items of one latent dimension whose outputs have these log-likelihoods.

    A step from x = 0 with f_old = 0 and z = 2 ends at x' = 2 k. The output f is the one at which
    its log-prob is `new`, so gradients reach `new` through all fields.

    Args:
        kind: "transition" or "denoising".
        needs: fields that the algorithm asks for, as of `needs_of`.
        new: log-likelihoods now, `[items]`, with gradient.
        old: log-probs when it was sampled, `[items]`, at most 2 below `new`.
    """
    count = len(new)
    number = torch.arange(count)
    if kind == "denoising":
        target = torch.zeros(count, 1)
        output = (-new).clamp_min(1e-12).sqrt()[:, None]
        asked = {"target": target, "reference_output": output.detach() * 0.9}
        step = None
    else:
        k = torch.exp(-0.5 * NOISE**2 - 0.5 * math.log(2 * math.pi) - old.detach())
        b = torch.full_like(k, FACTOR)
        shift = k * (NOISE - (NOISE**2 - 2 * (new - old)).sqrt())  # μ - μ_old
        output = (shift / b)[:, None]
        asked = {
            "target": (NOISE * k / b)[:, None],
            "old_output": torch.zeros(count, 1),
            "reference_output": torch.full((count, 1), 0.1),
        }
        step = StepItems(torch.ones_like(k), b, k, b.abs())
    return Items(
        new_log_probs=new,
        old_log_probs=None if kind == "denoising" else old,
        output=output,
        index=number,
        image=number,
        group=number // 2,
        step=step,
        kl=None,
        asked={name: asked[name] for name in needs or () if name in asked},
    )
