"""The KL penalty to the reference policy, in three units.

| `optim.kl_of` | penalty of a step x' = a · x + b · f + k · z | source |
|---|---|---|
| `step` | b² · mean((f - f_ref)²) / (2 k²), its KL divergence | DPOK, arXiv 2305.16381 |
| `time` | the same times the step's time | Flow-GRPO, arXiv 2505.05470; its train_sd3.py |
| `output` | mean((f - f_ref)²), on the denoiser's output alone | X-GenGroup/Flow-Factory |

A weight of one unit means something else in another: 0.04 in `time` is about 4e-4 in `output` on
the grid of Stable Diffusion 3 (yifan123/flow_grpo issue 204).
"""

from __future__ import annotations

from torch import Tensor

from ddpo.policies.schedule import along_batch, mean_per_item

__all__ = ["output_distance", "step_kl"]


def step_kl(means: Tensor, reference: Tensor, std: Tensor) -> Tensor:
    """(μ - μ_ref)² / (2 k²), a mean over the dimensions, `[batch]`.

    It is exact, since both steps are Gaussians of the same standard deviation.

    Args:
        means: means of the steps, `[batch, …]`.
        reference: means of the reference policy, of the same shape.
        std: standard deviations of the steps, `[batch]`.
    """
    return mean_per_item(0.5 * ((means - reference) / along_batch(std, means)) ** 2)


def output_distance(output: Tensor, reference: Tensor) -> Tensor:
    """(f - f_ref)², a mean over the dimensions, `[batch]`."""
    return mean_per_item((output - reference) ** 2)
