"""The promise that the sampler's steps keep the marginals of the diffusion."""

from __future__ import annotations

import math
from typing import Final

import torch

from ddpo.model_check.model_under_test import ETA, ModelUnderTest
from ddpo.policies.schedule import Schedule
from ddpo.rewards.check.definition import CheckFailed

__all__ = ["marginal"]

MEAN: Final = 1.0
SPREAD: Final = 0.5
MOST_STEPS: Final = 250
TOLERANCE: Final = 0.02


def marginal(tested: ModelUnderTest) -> str | None:
    """From exact predictions for normal images, the schedule's steps sample those images."""
    schedule = tested.policy.schedule
    if schedule.levels < 1:
        raise CheckFailed(f"the schedule has {schedule.levels} noise levels")
    steps = min(MOST_STEPS, schedule.levels)
    mean, spread = _sampled(schedule, steps, tested.policy.device)
    found = f"a mean of {mean:.3f} and a spread of {spread:.3f}"
    if not (abs(mean - MEAN) <= TOLERANCE and abs(spread - SPREAD) <= TOLERANCE):
        raise CheckFailed(
            f"{steps} steps sample {found}, and the images have {MEAN:g} and {SPREAD:g}"
        )
    return f"{found} after {steps} steps"


def _sampled(schedule: Schedule, steps: int, device: torch.device) -> tuple[float, float]:
    """Mean and spread of the samples, computed exactly, since every step is affine in x."""
    coefficients = schedule.coefficients_on(device, steps, ETA).to("cpu")
    best = _BestPrediction(schedule)
    signal, noise, _, _ = best.shares(float(coefficients.timesteps[0]))
    mean = signal * MEAN
    variance = signal**2 * SPREAD**2 + noise**2
    for index in range(steps):
        time = float(coefficients.timesteps[index])
        ends = torch.tensor([0.0, 1.0])
        outputs = torch.tensor([best(float(end), time) for end in ends])
        moved = schedule.mean(outputs, ends, torch.full((2,), index), coefficients).double()
        slope = float(moved[1] - moved[0])
        mean = float(moved[0]) + slope * mean
        variance = slope**2 * variance + float(coefficients.noise_std[index]) ** 2
    return mean, math.sqrt(variance)


class _BestPrediction:
    """The expected target of a noisy value, for images that are N(`MEAN`, `SPREAD`²).

    Noising and target are affine in the image and the noise, so that their factors are read from
    the schedule. Between two levels they are taken on a straight line in the timestep.
    """

    def __init__(self, schedule: Schedule) -> None:
        levels = torch.arange(schedule.levels)
        ones = torch.ones(schedule.levels)
        zeros = torch.zeros(schedule.levels)
        self._times = schedule.timestep(levels).double()
        self._shares = [
            use(image, noise, levels).double()
            for use in (schedule.noised, schedule.target)
            for image, noise in ((ones, zeros), (zeros, ones))
        ]

    def shares(self, time: float) -> tuple[float, float, float, float]:
        """Factors of image and noise in the noisy value, then in the target."""
        above = int(torch.searchsorted(self._times, time).clamp(1, len(self._times) - 1))
        before, after = (float(one) for one in self._times[above - 1 : above + 1])
        place = (time - before) / (after - before)
        one, two, three, four = (
            float(values[above - 1] + place * (values[above] - values[above - 1]))
            for values in self._shares
        )
        return one, two, three, four

    def __call__(self, value: float, time: float) -> float:
        signal, noise, of_image, of_noise = self.shares(time)
        variance = signal**2 * SPREAD**2 + noise**2
        away = (value - signal * MEAN) / variance
        image = MEAN + signal * SPREAD**2 * away
        return of_image * image + of_noise * noise * away
