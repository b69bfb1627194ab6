"""The KL divergence of a tuned policy from its base model, over the whole denoising path."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SamplerSettings, coefficients_of, guided
from ddpo.policies.schedule import STD_FLOOR
from ddpo.types import Trajectory

__all__ = ["trajectory_kl"]


@torch.no_grad()
def trajectory_kl(
    policy: Policy, texts: Sequence[str], trajectory: Trajectory, settings: SamplerSettings
) -> Tensor:
    """One estimate per path of KL(policy || reference policy), in nats.

    The estimate is Σ_t ‖μ_t − μ_ref,t‖² / (2 σ_t²) along a path of the policy. Both policies sample
    x_{t-1} from normals with the same σ_t, so each summand is the exact divergence of one step. By
    the chain rule, the sum is an unbiased estimate of the divergence of whole paths. It is summed
    over steps, channels and positions, not averaged as log-probs are.

    Both policies use the guidance they sample with. Steps without noise have no density and are
    left out, such as the last step of a schedule that ends at ᾱ = 1. The cost is two calls of the
    denoiser per step, twice that of sampling.

    The last steps dominate, since their σ is smallest: 95 % come from the last of 20 steps of the
    embedded model after 40 iterations. So the estimate grows with changes of fine detail, and
    values are comparable only for one sampler.

    Args:
        policy: Tuned policy in the state that sampled the paths, with its `reference()`.
        texts: Conditioning texts `[batch]`, at most `settings.batch`.
        trajectory: Paths sampled by `policy`, with all latents.
        settings: Sampler settings of the paths.

    Returns:
        float64 `[batch]` on the CPU, at least 0; NaN if no step has noise (η = 0).

    Raises:
        ValueError: The numbers of paths and texts differ, or the paths have other steps.

    Source: Fan et al., DPOK, arXiv 2305.16381, section 4.2; the divergence of two normals of one
    variance is textbook.
    """
    if trajectory.latents.shape[:2] != (len(texts), settings.steps + 1):
        shape = list(trajectory.latents.shape[:2])
        raise ValueError(
            f"paths of shape {shape} for {len(texts)} texts and {settings.steps} steps"
        )
    coefficients = coefficients_of(policy, settings)
    noisy = [index for index, std in enumerate(coefficients.noise_std.tolist()) if std > STD_FLOOR]
    if not noisy:
        return torch.full((len(texts),), torch.nan, dtype=torch.float64)
    padding = settings.batch - len(texts)
    paths = trajectory.latents
    latents = torch.cat([paths, paths[-1:].expand(padding, *paths.shape[1:])]).to(policy.device)
    conditioning = policy.encode([*texts, *[texts[-1]] * padding])
    unconditional = policy.encode([""])
    total = torch.zeros(settings.batch, dtype=torch.float64, device="cpu")
    for index in noisy:
        x_t = latents[:, index]
        step = torch.full((settings.batch,), index, device=policy.device)

        def mean(x_t: Tensor = x_t, step: Tensor = step) -> Tensor:
            time = coefficients.timesteps[step]
            output = guided(policy, x_t, time, conditioning, unconditional, settings.guidance)
            return policy.schedule.mean(output, x_t, step, coefficients)

        tuned = mean()
        with policy.reference():
            apart = (tuned - mean()) / coefficients.std[index]
        dimensions = tuple(range(1, apart.ndim))
        total += apart.square().sum(dimensions).cpu().double() / 2
    return total[: len(texts)]
