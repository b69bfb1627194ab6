"""Noise levels and steps of flow models: published grids and formulas, and an exact example."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.policies.flow_schedule import FlowSchedule, flux_shift, shifted
from ddpo.policies.transition import gaussian_log_prob

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        (
            FlowSchedule(3.0, "diffusers"),
            10,
            [1, 0.96013, 0.91335, 0.85769, 0.79037, 0.70728, 0.60215, 0.46488, 0.27805, 0.00893, 0],
        ),
        (
            FlowSchedule(3.0),
            10,
            [1, 0.96429, 0.92308, 0.875, 0.81818, 0.75, 0.66667, 0.5625, 0.42857, 0.25, 0],
        ),
        (FlowSchedule(flux_shift(1024)), 6, [1, 0.90374, 0.7897, 0.65249, 0.48422, 0.273, 0]),
        (
            FlowSchedule(6.0),
            10,
            [1, 0.98182, 0.96, 0.93333, 0.9, 0.85714, 0.8, 0.72, 0.6, 0.4, 0],
        ),
    ],
)
def test_the_published_levels(schedule: FlowSchedule, steps: int, expected: list[float]) -> None:
    assert schedule.sigmas(steps).tolist() == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("steps", [1, 4, 10, 28, 40])
def test_the_levels_are_those_of_the_installed_scheduler(steps: int) -> None:
    """A failure says that diffusers has changed the grid of Stable Diffusion 3 (issue 13243)."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    ours = FlowSchedule(3.0, "diffusers").sigmas(steps)
    torch.testing.assert_close(ours, scheduler.sigmas.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_the_levels_of_flux_are_those_of_the_installed_scheduler(tokens: int) -> None:
    import numpy as np
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 28, 28), mu=calculate_shift(tokens))
    ours = FlowSchedule(flux_shift(tokens)).sigmas(28)
    torch.testing.assert_close(ours, scheduler.sigmas.double(), rtol=0, atol=1e-6)


def published_mean(
    step: str, x: Tensor, v: Tensor, now: float, after: float, eta: float, first_below: float
) -> tuple[Tensor, float]:
    """Mean and standard deviation in the form of the papers."""
    change = after - now
    x_0 = x - now * v
    noise = x + (1 - now) * v
    if step == "flow_sde":
        s = eta * math.sqrt(now / (1 - (first_below if now == 1 else now)))
        mean = x * (1 + s**2 / (2 * now) * change) + v * (1 + s**2 * (1 - now) / (2 * now)) * change
        return mean, s * math.sqrt(-change)
    if step == "dance_sde":
        score = -(x - (1 - now) * x_0) / now**2
        return x + v * change - eta**2 / 2 * score * change, eta * math.sqrt(-change)
    s = after * math.sin(eta * math.pi / 2)
    return (1 - after) * x_0 + math.sqrt(after**2 - s**2) * noise, s


@pytest.mark.parametrize("step", ["flow_sde", "dance_sde", "cps"])
@pytest.mark.parametrize("eta", [0.3, 0.7, 0.9])
def test_a_step_is_the_published_one(step: str, eta: float) -> None:
    from ddpo.policies.flow_schedule import STEPS

    sigma = FlowSchedule(3.0, "diffusers").sigmas(10)
    a, b, k = STEPS[step](sigma[:-1], sigma[1:], eta)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, generator=generator, dtype=torch.float64)
    v = torch.randn(64, generator=generator, dtype=torch.float64)
    for i in range(10):
        now = float(sigma[i])
        mean, std = published_mean(step, x, v, now, float(sigma[i + 1]), eta, float(sigma[1]))
        torch.testing.assert_close(a[i] * x + b[i] * v, mean, rtol=1e-12, atol=1e-12)
        assert float(k[i]) == pytest.approx(std, abs=1e-12)


def test_an_ode_step_is_that_of_the_installed_scheduler() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    schedule = FlowSchedule(3.0, "diffusers", "ode")
    coefficients = schedule.coefficients(10, 0.0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(10)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for index, time in enumerate(scheduler.timesteps):
        v = torch.sin(x)
        theirs = scheduler.step(v, time, x).prev_sample
        step = torch.full((2,), index)
        ours = schedule.mean(v, x, step, coefficients)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        x = theirs


MEAN = 1.0
SPREAD = 0.5


def best_velocity(x: Tensor, sigma: Tensor) -> Tensor:
    """E[ε - x_0 | x] of images that are N(1, 0.5²)."""
    variance = (1 - sigma) ** 2 * SPREAD**2 + sigma**2
    away = (x - (1 - sigma) * MEAN) / variance
    return away * sigma - (MEAN + (1 - sigma) * SPREAD**2 * away)


@pytest.mark.parametrize(
    ("schedule", "eta", "expected"),
    [
        (FlowSchedule(3.0, "diffusers", "ode"), 0.0, {10: 0.359, 40: 0.465, 1000: 0.498}),
        (FlowSchedule(3.0, "diffusers", "flow_sde"), 0.7, {10: 0.421, 40: 0.480, 1000: 0.501}),
        (FlowSchedule(3.0, "diffusers", "flow_sde"), 1.2, {10: 0.480, 40: 0.488, 1000: 0.500}),
        (FlowSchedule(3.0, "diffusers", "dance_sde"), 0.3, {10: 0.377, 40: 0.468, 1000: 0.501}),
        (FlowSchedule(3.0, "diffusers", "dance_sde"), 0.7, {10: 0.447, 40: 0.483, 1000: 0.497}),
        (FlowSchedule(3.0, "diffusers", "cps"), 0.8, {10: 0.307, 40: 0.371, 1000: 0.402}),
    ],
)
def test_the_marginal_of_a_gaussian(
    schedule: FlowSchedule, eta: float, expected: dict[int, float]
) -> None:
    """Spread of the samples of N(1, 0.5²) by n steps, computed exactly: each step is linear."""
    for steps, spread in expected.items():
        coefficients = schedule.coefficients(steps, eta)
        mean = 0.0
        variance = 1.0
        for index in range(steps):
            sigma = coefficients.timesteps[index].double()
            ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
            step = torch.full((2,), index)
            moved = schedule.mean(best_velocity(ends, sigma), ends, step, coefficients).double()
            slope = float(moved[1] - moved[0])
            mean = float(moved[0]) + slope * mean
            variance = slope**2 * variance + float(coefficients.noise_std[index]) ** 2
        assert math.sqrt(variance) == pytest.approx(spread, abs=0.0025)
        assert mean == pytest.approx(MEAN, abs=0.005)


@pytest.mark.parametrize("step", ["flow_sde", "dance_sde", "cps"])
def test_the_divergence_of_two_steps_follows_from_the_table(step: str) -> None:
    schedule = FlowSchedule(3.0, "linspace", step)  # type: ignore[arg-type]
    coefficients = schedule.coefficients(10, 0.7)
    generator = torch.Generator().manual_seed(1)
    x, f, g = (torch.randn(1, 4, 3, generator=generator) for _ in range(3))
    for index in range(9):
        place = torch.tensor([index])
        std = coefficients.std[place]
        one, two = (
            torch.distributions.Normal(schedule.mean(v, x, place, coefficients), std)
            for v in (f, g)
        )
        exact = torch.distributions.kl_divergence(one, two).mean()
        scale = (coefficients.b[index] / std) ** 2
        torch.testing.assert_close((scale * (f - g) ** 2 / 2).mean(), exact, rtol=1e-4, atol=0)
        z = torch.randn(1, 4, 3, generator=generator)
        new = one.mean + std * z
        log_ratio = gaussian_log_prob(new, two.mean, std) - gaussian_log_prob(new, one.mean, std)
        root = coefficients.b[index] / std
        from_noise = (root * z * (g - f)).mean() - (scale * (g - f) ** 2 / 2).mean()
        torch.testing.assert_close(log_ratio.mean(), from_noise, rtol=1e-3, atol=1e-5)


def test_levels_of_the_denoising_loss() -> None:
    schedule = FlowSchedule(3.0)
    levels = torch.tensor([0, 499, 999])
    sigma = schedule.timestep(levels)
    assert sigma.tolist() == pytest.approx([float(shifted(torch.tensor(1e-3), 3.0)), 0.75, 1.0])
    x_0 = torch.ones(3, 2, 1, 1)
    noise = -torch.ones(3, 2, 1, 1)
    x_t = schedule.noised(x_0, noise, levels)
    velocity = schedule.target(x_0, noise, levels)
    torch.testing.assert_close(x_t - sigma.view(-1, 1, 1, 1) * velocity, x_0)
    torch.testing.assert_close(x_t + (1 - sigma).view(-1, 1, 1, 1) * velocity, noise)
    half = schedule.nearest_level(0.5)
    assert float(schedule.timestep(torch.tensor([half]))) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shift": 0.0}, "shift of a flow must be above 0"),
        ({"shift": math.nan}, "shift of a flow must be above 0"),
        ({"shift": 3.0, "grid": "karras"}, "grid of a flow must be diffusers or linspace"),
        ({"shift": 3.0, "step": "ddim"}, "step of a flow must be flow_sde or dance_sde"),
    ],
)
def test_what_cannot_be_a_flow_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FlowSchedule(**values)


@pytest.mark.parametrize(
    ("step", "steps", "eta", "words"),
    [
        ("cps", 10, 1.5, r"eta must be in \[0, 1\] for cps"),
        ("flow_sde", 10, -0.1, r"eta must be in \[0, 2\] for flow_sde"),
        ("flow_sde", 10, math.nan, "eta must be in"),
        ("flow_sde", 0, 0.7, "steps must be in 1"),
        ("flow_sde", 1001, 0.7, "steps must be in 1"),
    ],
)
def test_a_sampler_run_that_cannot_be_is_refused(
    step: Any, steps: int, eta: float, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        FlowSchedule(3.0, step=step).coefficients(steps, eta)


def test_coefficients_are_made_once() -> None:
    schedule = FlowSchedule(3.0)
    assert schedule.coefficients_on(CPU, 10, 0.7) is schedule.coefficients_on(CPU, 10, 0.7)
    assert schedule.coefficients_on(CPU, 10, 0.7) is not schedule.coefficients_on(CPU, 10, 0.8)
