"""Losses on the log-likelihoods of (image, step) items. All are pure and give one value per item.

Log-likelihoods are averages over the latent's dimensions (see `ddpo.trainer.likelihoods`). So a
ratio is a geometric mean per dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["clipped_surrogate", "masked_surrogate", "weighted_likelihood"]


def weighted_likelihood(log_likelihoods: Tensor, weights: Tensor) -> Tensor:
    """-w log p, `[items]`.

    With the log-prob of a denoising step and its advantage, the gradient is REINFORCE's
    (arXiv 2305.13301, equation DDPO_SF). With minus the denoising error and a regression weight, it
    is the loss of reward-weighted regression (the same, equation 4).
    """
    return -weights * log_likelihoods


def clipped_surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float
) -> Tensor:
    """max(-A ρ, -A clamp(ρ, 1 ± clip_range)) with ρ = π / π_old, `[items]`, per denoising step.

    Source: arXiv 1707.06347, equation 7.
    """
    from torch import clamp, exp, maximum

    ratio = exp(log_probs - old_log_probs)
    return maximum(-advantages * ratio, -advantages * clamp(ratio, 1 - clip_range, 1 + clip_range))


def masked_surrogate(log_ratio: Tensor, advantages: Tensor, kept: Tensor) -> Tensor:
    """-A ρ for items that are kept, 0 without gradient for the others, `[items]`.

    Args:
        log_ratio: ln ρ, `[items]`. Where it overflows and is not kept, the gradient is 0 too.
        advantages: advantages of the items' images, `[items]`.
        kept: truth values, `[items]`.
    """
    from torch import exp, where, zeros_like

    return -advantages * kept * exp(where(kept, log_ratio, zeros_like(log_ratio)))
