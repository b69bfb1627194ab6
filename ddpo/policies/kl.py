"""How far a tuned policy has moved from its base model: the KL divergence of the whole denoising path."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SamplerSettings, guided
from ddpo.policies.transition import STD_FLOOR, ddim_mean
from ddpo.types import Trajectory

__all__ = ["trajectory_kl"]


@torch.no_grad()
def trajectory_kl(
    policy: Policy, texts: Sequence[str], trajectory: Trajectory, settings: SamplerSettings
) -> Tensor:
    """One estimate per path of KL(policy || reference policy), in nats: Σ_t ‖μ_t − μ_ref,t‖² / (2 σ_t²) along a path of the policy.

    Both policies draw x_{t-1} from normals of one σ_t, so the summand is the exact divergence of one step; a path drawn by the policy
    makes the sum an unbiased estimate of the divergence of whole paths (chain rule). Summed over steps, channels and places, not averaged
    as log-probs are. Both policies are guided as they sample. Steps without noise have no density and are left out: the last one, where
    the schedule ends at ᾱ = 1. It costs two calls of the denoiser a step, drawing the path one.

    Most of it comes from the last steps, whose σ is least: of the embedded model after 40 iterations, 95 % from the last of 20. So it
    grows with what a model changed in fine detail, and only paths of one sampler compare.

    Args:
        policy: The tuned policy, in the state that drew the paths; `policy.reference()` must give the base model.
        texts: What the pictures were asked for, `[batch]`, at most `settings.batch`.
        trajectory: Paths that `policy` drew, with all their latents.
        settings: How they were drawn.

    Returns:
        float64 `[batch]`, on the CPU, at least 0; NaN where no step has noise (η = 0).

    Raises:
        ValueError: The paths are not as many as the texts, or have another number of steps.

    Source: Fan et al., DPOK, arXiv 2305.16381, section 4.2; the divergence of two normals of one variance is textbook.
    """
    if trajectory.latents.shape[:2] != (len(texts), settings.steps + 1):
        raise ValueError(
            f"paths of shape {list(trajectory.latents.shape[:2])} for {len(texts)} texts and {settings.steps} steps"
        )
    coefficients = policy.schedule.coefficients_on(policy.device, settings.steps, settings.eta)
    noisy = [index for index, std in enumerate(coefficients.noise_std.tolist()) if std > STD_FLOOR]
    if not noisy:
        return torch.full((len(texts),), torch.nan, dtype=torch.float64)
    padding = settings.batch - len(texts)
    latents = torch.cat(
        [trajectory.latents, trajectory.latents[-1:].expand(padding, *trajectory.latents.shape[1:])]
    ).to(policy.device)
    conditioning, unconditional = (
        policy.encode([*texts, *[texts[-1]] * padding]),
        policy.encode([""]),
    )
    total = torch.zeros(settings.batch, dtype=torch.float64, device="cpu")
    for index in noisy:
        x_t, step = latents[:, index], torch.full((settings.batch,), index, device=policy.device)

        def mean(x_t: Tensor = x_t, step: Tensor = step) -> Tensor:
            output = guided(
                policy,
                x_t,
                coefficients.timesteps[step],
                conditioning,
                unconditional,
                settings.guidance,
            )
            return ddim_mean(output, x_t, step, coefficients, policy.schedule.prediction)

        tuned = mean()
        with policy.reference():
            apart = (tuned - mean()) / coefficients.std[index]
        total += apart.square().sum((1, 2, 3)).cpu().double() / 2
    return total[: len(texts)]
