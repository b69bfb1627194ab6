"""The DDIM step against Stable Diffusion's published σ, diffusers and `torch.distributions`."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from ddpo.errors import ConfigError
from ddpo.policies import transition
from ddpo.policies.schedule import STD_FLOOR
from ddpo.policies.transition import NoiseSchedule, Prediction, ddim_mean, gaussian_log_prob

SD1 = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def schedule(**changes: object) -> NoiseSchedule:
    return NoiseSchedule.from_scheduler(DDIMScheduler(**(SD1 | changes)).config)


def test_sigma_of_stable_diffusion_at_50_steps() -> None:
    """Computed from kvablack/ddpo-pytorch's formula on SD 1.x's schedule."""
    found = schedule().coefficients(50, 1.0)
    by_time = dict(zip(found.timesteps.tolist(), found.std.tolist(), strict=True))
    expected = {981: 0.4544633, 961: 0.4482824, 41: 0.0998872, 21: 0.0394796, 1: 0.0206484}
    for time, sigma in expected.items():
        assert by_time[time] == pytest.approx(
            sigma, abs=5e-7
        )  # float32 and float64 differ by 3e-7 at t = 41
    assert sum(math.log(s) for s in found.std.tolist()) == pytest.approx(-69.0998, abs=2e-4)


def test_sigma_of_stable_diffusion_at_20_steps() -> None:
    found = schedule().coefficients(20, 1.0)
    assert found.std[0].item() == pytest.approx(0.6443911, abs=2e-7)
    assert found.std[-1].item() == pytest.approx(0.0206484, abs=2e-7)
    assert sum(math.log(s) for s in found.std.tolist()) == pytest.approx(-23.3833, abs=2e-4)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 7, 10, 50, 333])
def test_timesteps_are_those_of_diffusers(spacing: str, steps: int) -> None:
    scheduler = DDIMScheduler(**(SD1 | {"timestep_spacing": spacing}))
    scheduler.set_timesteps(steps)
    assert (
        NoiseSchedule.from_scheduler(scheduler.config).timesteps(steps)
        == scheduler.timesteps.tolist()
    )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_a_step_is_that_of_diffusers(prediction: str, eta: float, zero_snr: bool) -> None:
    if zero_snr and prediction == "epsilon":
        pytest.skip("noise prediction has no meaning at zero signal")
    spacing = "trailing" if zero_snr else "leading"
    scheduler = DDIMScheduler(
        **(
            SD1
            | {
                "prediction_type": prediction,
                "timestep_spacing": spacing,
                "rescale_betas_zero_snr": zero_snr,
            }
        )
    )
    scheduler.set_timesteps(10)
    # At zero signal and eta 1, 1 - alpha - sigma² is 0. In float32 it is a rounding error, whose
    # root in diffusers is NaN.
    near_zero = zero_snr and eta == 1
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    mine = NoiseSchedule.from_scheduler(scheduler.config)
    coefficients = mine.coefficients(10, eta)
    generator = torch.Generator().manual_seed(0)
    x, output, noise = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(3))
    for index, time in enumerate(scheduler.timesteps):
        expected = scheduler.step(
            output, time, x, eta=eta, variance_noise=noise
        ).prev_sample.float()
        mean = ddim_mean(output, x, torch.tensor([index]), coefficients, mine.prediction)
        torch.testing.assert_close(
            mean + coefficients.noise_std[index] * noise,
            expected,
            atol=1e-3 if near_zero else 2e-5,
            rtol=1e-4,
        )
        affine = coefficients.a[index] * x + coefficients.b[index] * output
        scale = float(affine.abs().max())
        tolerance = 1e-3 if near_zero else 1e-5
        assert float((affine - mean).abs().max()) < tolerance * max(1.0, scale)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_affine_form_is_the_published_step(prediction: Prediction) -> None:
    """Song et al., equation 12, in float64: x̂_0 and ε̂ from the output, then their mixture."""
    found = replace(schedule(), prediction=prediction)
    table = found.coefficients(20, 0.7)
    alpha = found.alphas_cumprod[table.timesteps]
    stride = len(found.alphas_cumprod) // 20
    before = [int(t) - stride for t in table.timesteps]
    final = torch.tensor(found.final_alpha, dtype=torch.float64)
    after = torch.stack([found.alphas_cumprod[t] if t >= 0 else final for t in before])
    std = 0.7 * ((1 - after) / (1 - alpha) * (1 - alpha / after)).clamp_min(0).sqrt()
    a, b = transition._affine(alpha, after, std, prediction)
    x, f = torch.randn(2, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signal = alpha.sqrt()
    noise = (1 - alpha).sqrt()
    x_0, epsilon = {
        "epsilon": ((x - noise * f) / signal, f),
        "v_prediction": (signal * x - noise * f, signal * f + noise * x),
        "sample": (f, (x - signal * f) / noise),
    }[prediction]
    mean = after.sqrt() * x_0 + (1 - after - std**2).clamp_min(0).sqrt() * epsilon
    torch.testing.assert_close(a * x + b * f, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(table.a, a.float(), rtol=0, atol=0)
    torch.testing.assert_close(table.b, b.float(), rtol=0, atol=0)


def test_log_prob_is_the_mean_over_dimensions_of_a_normal_density() -> None:
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(3, 4, 5, 6, generator=generator)
    x = torch.randn(3, 4, 5, 6, generator=generator)
    std = torch.tensor([0.02, 0.5, 2.0])
    expected = torch.distributions.Normal(mean, std.view(-1, 1, 1, 1)).log_prob(x).mean((1, 2, 3))
    torch.testing.assert_close(gaussian_log_prob(x, mean, std), expected)


def test_log_prob_gradient_reaches_the_mean_and_not_the_sample() -> None:
    """d/dmean of the mean-reduced density is (x - mean) / (std² · dimensions)."""
    mean = torch.zeros(1, 1, 1, 2, requires_grad=True)
    x = torch.tensor([[[[1.0, -2.0]]]], requires_grad=True)
    gaussian_log_prob(x, mean, torch.tensor([0.5])).backward()
    torch.testing.assert_close(mean.grad, torch.tensor([[[[2.0, -4.0]]]]))
    assert x.grad is None


def test_eta_zero_has_a_floor_for_the_density_and_adds_no_noise() -> None:
    found = schedule().coefficients(10, 0.0)
    assert found.noise_std.tolist() == [0.0] * 10
    assert found.std.tolist() == pytest.approx([STD_FLOOR] * 10)


def test_flow_matching_and_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="not a variance-preserving diffusion"):
        NoiseSchedule.from_scheduler(
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
        )
    with pytest.raises(ConfigError, match="eta must be in"):
        schedule().coefficients(10, 1.5)
    with pytest.raises(ConfigError, match="steps must be in"):
        schedule().coefficients(1001, 1.0)
