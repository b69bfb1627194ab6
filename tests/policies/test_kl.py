"""The KL of denoising paths, against its closed form and the mean of log π - log π_ref."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gaussian import SPREAD, GaussianPolicy
from torch import Tensor

from ddpo.policies.kl import trajectory_kl
from ddpo.policies.sampler import SampleKey, SamplerSettings, guided, sample_trajectory
from ddpo.policies.transition import ddim_mean
from ddpo.types import Prompt, Trajectory

CATS = [SampleKey(Prompt("a cat"), index) for index in range(6)]
TEXTS = [key.prompt.text for key in CATS]


def kl_of_a_shift(shift: float, steps: int, eta: float) -> float:
    """Σ_t (Δμ_t)² / (2σ_t²) in 48 dimensions, in float64 from the betas.

    The shift changes ε by a constant, so no path is needed.

    With μ = √ᾱ' (x - √(1-ᾱ) ε) / √ᾱ + √(1-ᾱ'-σ²) ε and ε lower by √(1-ᾱ) √ᾱ shift / (ᾱ s² + 1 - ᾱ).
    """
    alphas = np.cumprod(1 - np.linspace(1e-3, 2e-2, 1000))
    total = 0.0
    stride = 1000 // steps
    for index in range(steps - 1):  # the last step goes to ᾱ = 1 without noise
        a = alphas[(steps - 1 - index) * stride]
        before = alphas[(steps - 2 - index) * stride]
        variance = eta**2 * (1 - before) / (1 - a) * (1 - a / before)
        epsilon = -math.sqrt((1 - a) * a) * shift / (a * SPREAD**2 + 1 - a)
        mean = (math.sqrt(1 - before - variance) - math.sqrt(before * (1 - a) / a)) * epsilon
        total += 48 * mean**2 / (2 * variance)
    return total


@pytest.mark.parametrize(("steps", "eta"), [(10, 1.0), (20, 0.5)])
def test_a_shift_has_the_kl_of_the_closed_form_whatever_the_path(steps: int, eta: float) -> None:
    policy = GaussianPolicy(shift=0.1)
    settings = SamplerSettings(steps, 1.0, eta, 6)
    found = trajectory_kl(policy, TEXTS, sample_trajectory(policy, CATS, settings, 3), settings)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), kl_of_a_shift(0.1, steps, eta), rtol=2e-4)


def log_ratio(policy: GaussianPolicy, trajectory: Trajectory, settings: SamplerSettings) -> Tensor:
    """log π(path) - log π_ref(path) by torch's normal density, `[batch]`; both with guidance."""
    c = policy.schedule.coefficients(settings.steps, settings.eta)
    conditioning = policy.encode(["a cat"] * settings.batch)
    empty = policy.encode([""])
    total = torch.zeros(settings.batch, dtype=torch.float64)

    def density(index: int) -> Tensor:
        step = torch.full((settings.batch,), index)
        x = trajectory.latents[:, index]
        output = guided(policy, x, c.timesteps[step], conditioning, empty, settings.guidance)
        mean = ddim_mean(output, x, step, c, "epsilon").double()
        return (
            torch.distributions.Normal(mean, c.std[index].double())
            .log_prob(trajectory.latents[:, index + 1].double())
            .sum((1, 2, 3))
        )

    for index in range(settings.steps):
        tuned = density(index)
        with policy.reference():
            total += tuned - density(index)
    return total


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_it_is_the_mean_log_ratio_of_paths_of_the_policy(guidance: float) -> None:
    """They differ by Σ Δμ·ε/σ, with mean 0 and variance 2 KL, so a log ratio spreads far more."""
    policy = GaussianPolicy(
        shift=0.05, bend=0.02, final_alpha=0.999
    )  # here the last step is noisy too
    settings = SamplerSettings(8, guidance, 1.0, 1024)
    trajectory = sample_trajectory(
        policy, [SampleKey(Prompt("a cat"), index) for index in range(1024)], settings, 5
    )
    kl = trajectory_kl(policy, ["a cat"] * 1024, trajectory, settings)
    apart = log_ratio(policy, trajectory, settings) - kl
    assert abs(float(apart.mean())) < 4 * float(apart.std()) / 32
    assert float(apart.var()) == pytest.approx(2 * float(kl.mean()), rel=0.2)
    assert 0 < float(kl.std()) < 0.5 * float(apart.std())


def test_without_training_it_is_zero_and_without_noise_it_does_not_exist() -> None:
    settings = SamplerSettings(5, 2.0, 1.0, 6)
    same = GaussianPolicy()
    assert (
        trajectory_kl(same, TEXTS, sample_trajectory(same, CATS, settings, 1), settings).tolist()
        == [0.0] * 6
    )
    still = SamplerSettings(5, 2.0, 0.0, 6)
    policy = GaussianPolicy(shift=0.1)
    assert (
        trajectory_kl(policy, TEXTS, sample_trajectory(policy, CATS, still, 1), still).isnan().all()
    )


def test_a_part_of_a_batch_has_the_same_kl_and_the_denoiser_one_shape() -> None:
    settings = SamplerSettings(5, 2.0, 1.0, 6)
    policy = GaussianPolicy(bend=0.1)
    path = sample_trajectory(policy, CATS, settings, 1)
    whole, part = (
        trajectory_kl(policy, TEXTS[:n], Trajectory(path.latents[:n], path.log_probs[:n]), settings)
        for n in (6, 2)
    )
    assert torch.equal(part, whole[:2])
    assert policy.shapes == {12}
    with pytest.raises(ValueError, match="for 3 texts"):
        trajectory_kl(policy, TEXTS[:3], path, settings)


def test_another_text_on_the_same_noise() -> None:
    policy = GaussianPolicy()
    settings = SamplerSettings(5, 2.0, 1.0, 6)
    own = sample_trajectory(policy, CATS, settings, 1).latents
    assert torch.equal(sample_trajectory(policy, CATS, settings, 1, TEXTS).latents, own)
    swapped = sample_trajectory(policy, CATS, settings, 1, ["a dog", *TEXTS[1:]]).latents
    assert torch.equal(swapped[:, 0], own[:, 0])
    assert torch.equal(swapped[1:], own[1:])
    apart = (swapped[0, -1] - own[0, -1]).mean(
        (1, 2)
    )  # of the same noise the colour moves by the difference of the prompts' means, guided
    assert torch.equal(
        apart.sign(), (policy.encode(["a dog"]) - policy.encode(["a cat"]))[0, 0].sign()
    )
    with pytest.raises(ValueError, match="1 texts for 6 keys"):
        sample_trajectory(policy, CATS, settings, 1, ["a dog"])
