"""The promise that the schedule's numbers describe the distribution that the sampler uses."""

from __future__ import annotations

from typing import Final

import torch
from torch.distributions import Normal

from ddpo.model_check.model_under_test import STEPS, ModelUnderTest
from ddpo.policies.policy import TrainablePolicy
from ddpo.policies.sampler import sample_noise, sample_trajectory
from ddpo.policies.schedule import STD_FLOOR, along_batch, mean_per_item
from ddpo.rewards.check.definition import CheckFailed

__all__ = ["log_prob"]

TOLERANCE: Final = 1e-4


@torch.no_grad()
def log_prob(tested: ModelUnderTest) -> str | None:
    """Log-probs of sampled steps are those of torch's normal distribution with the step's noise."""
    policy = tested.policy
    _check_table(tested, policy)
    keys = tested.keys()
    path = sample_trajectory(policy, keys, tested.settings(1.0), seed=4)
    noise = torch.stack([sample_noise(key, 4, STEPS, policy.latent_shape) for key in keys])
    noise = noise.to(policy.device)
    coefficients = tested.coefficients(policy)
    largest = 0.0
    for index in range(STEPS):
        std = coefficients.noise_std[index]
        if float(std) <= STD_FLOOR:
            continue  # no noise, thus no density
        mean = path.latents[:, index + 1] - std * noise[:, index + 1]
        exact = mean_per_item(Normal(mean, std).log_prob(path.latents[:, index + 1]))
        error = float((exact - path.log_probs[:, index]).abs().max())
        if not error <= TOLERANCE * (1 + float(exact.abs().max())):
            raise CheckFailed(
                f"a sampled step {index} has a log-prob of {float(path.log_probs[0, index]):.5g}, "
                f"and its normal distribution {float(exact[0]):.5g}"
            )
        largest = max(largest, error)
    return f"agree to {largest:.1e}"


def _check_table(tested: ModelUnderTest, policy: TrainablePolicy) -> None:
    """Raises unless the coefficients describe the mean and the noise of a step."""
    coefficients = tested.coefficients(policy)
    noise = coefficients.noise_std
    std = coefficients.std
    if not torch.equal(noise.clamp_min(STD_FLOOR), std):
        raise CheckFailed(
            f"the sampler adds noise of {noise.tolist()}, and the density has {std.tolist()}"
        )
    latents, _, conditioning = tested.inputs(policy)
    steps = torch.arange(len(latents), device=policy.device)
    output = policy.predict(latents, coefficients.timesteps[steps], conditioning)
    mean = policy.schedule.mean(output, latents, steps, coefficients)
    terms = [
        along_batch(factor[steps], latents) * values
        for factor, values in ((coefficients.a, latents), (coefficients.b, output))
    ]
    size = float(sum(term.abs().max() for term in terms))
    error = float((terms[0] + terms[1] - mean).abs().max())
    if not error <= TOLERANCE * (1 + size):
        raise CheckFailed(
            f"schedule.mean differs by {error:.2g} from a · x + b · output of its coefficients"
        )
