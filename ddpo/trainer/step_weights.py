"""Rules that even out the denoising steps, each a line on the coefficients of a step.

For a step x' = a · x + b · f + k · z, the gradient of its log-prob in the denoiser's output f is
b · z / k. On the grid of Stable Diffusion 3, b² / k² grows a thousandfold from the first step to
the last. With one clip range for all, the late steps decide the gradient and reach the clip, and
the early ones hardly move.

| rule | gradient in f |
|---|---|
| none | b · z / k |
| `guard_log_ratio`, divided by the step's time Δ | b · z / Δ |
| `temporal_weight` | b · z |
| `balanced_weight` | z |

Every function is pure, and means are over the latent's dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "TEMPORAL_SCALE",
    "balanced_weight",
    "guard_log_ratio",
    "temporal_weight",
    "within_divergence",
]

TEMPORAL_SCALE: Final = 2.25
"""Source: Tencent-Hunyuan/UniRL, tempflowgrpo.py, `weight_scale`."""


def guard_log_ratio(mean_shift: Tensor, noise: Tensor) -> Tensor:
    """Log-ratio mean(z · (μ - μ_old)) of GRPO-Guard, `[items]`.

    It equals k · (log p - log p_old + mean((μ - μ_old)²) / (2 k²)), as it is published. So the
    bias that makes ratios less than 1 on average is taken out, and the spread is the same at all
    steps. In this form nothing large cancels, so float32 is enough for clip ranges of 1e-6.

    Args:
        mean_shift: μ - μ_old, `[items, …]`.
        noise: z of the sampled steps, `[items, …]`.

    Source: Wang et al., GRPO-Guard, arXiv 2510.22319.
    """
    return (noise * mean_shift).flatten(1).mean(1)


def temporal_weight(k: Tensor) -> Tensor:
    """Weight 2.25 k of TempFlow-GRPO: steps with more noise explore more. Any shape.

    Source: He et al., TempFlow-GRPO, arXiv 2508.04324; the factor as in `TEMPORAL_SCALE`.
    """
    return TEMPORAL_SCALE * k


def balanced_weight(b: Tensor, k: Tensor) -> Tensor:
    """Weight k / |b|, with which all steps have equal gradients in the output. Any shape.

    For Flow-SDE it is the weight of FlashGRPO, 1 / (√|Δ| / s + s √|Δ| (1 - t) / (2 t)).

    Source: Tencent-Hunyuan/UniRL, flashgrpo.py.
    """
    return k / b.abs()


def within_divergence(
    divergence: Tensor, ratio: Tensor, advantages: Tensor, largest: float
) -> Tensor:
    """True for items that Flow-DPPO trains on, bool `[items]`.

    It leaves out items that are far from the sampling policy and that would move further away.

    Args:
        divergence: KL from the policy that sampled, `[items]`.
        ratio: π / π_old, `[items]`.
        advantages: advantages of the items' images, `[items]`.
        largest: divergence from which items are left out.

    Source: Flow-DPPO, arXiv 2606.11025; Tencent-Hunyuan/UniRL, flowdppo.py.
    """
    away = ((ratio > 1) & (advantages > 0)) | ((ratio < 1) & (advantages < 0))
    return ~((divergence >= largest) & away)
