"""Policy-gradient losses on the log-probs of denoising steps. Pure; one value per (picture, step) item.

Log-probs are averages over the latent's dimensions (see `ddpo.policies.transition`), so a ratio is the geometric mean per dimension.
"""

from __future__ import annotations

from torch import Tensor, clamp, exp, maximum

__all__ = ["clipped_surrogate", "score_function"]


def score_function(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """-A log π(x_{t-1} | x_t, c): its gradient is REINFORCE's. `[items]`. Source: arXiv 2305.13301, equation DDPO_SF."""
    return -advantages * log_probs


def clipped_surrogate(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """max(-A ρ, -A clamp(ρ, 1 ± clip_range)) with ρ = π / π_old. `[items]`. Source: arXiv 1707.06347, equation 7, per denoising step."""
    ratio = exp(log_probs - old_log_probs)
    return maximum(-advantages * ratio, -advantages * clamp(ratio, 1 - clip_range, 1 + clip_range))
