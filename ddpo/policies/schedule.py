"""The protocol of a schedule: the noise levels of a model and the step between two of them.

Every step is a Gaussian whose mean is affine in the denoiser's output f:

    x' = a · x + b · f + k · z,   z ~ N(0, 1)

So one table (a, b, k) describes a sampler. The KL divergence of a step from one with output g is
b² · ‖f − g‖² / (2 k²), and the noise z of a stored step is (x' − a · x − b · f) / k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "STD_FLOOR",
    "SamplerChoice",
    "Schedule",
    "StepCoefficients",
    "along_batch",
    "mean_per_item",
]

STD_FLOOR = 1e-6
"""Least standard deviation of a step, so that η = 0 divides by no zero. Source: jannerm/ddpo."""


@dataclass(frozen=True, slots=True)
class StepCoefficients:
    """The coefficients of one sampler run, one entry per step in sampling order (noise first).

    All were computed in float64 and are stored as float32.
    """

    timesteps: Tensor  # [steps], descending, as the denoiser is given them
    a: Tensor  # [steps], factor of the noisy latents in the mean
    b: Tensor  # [steps], factor of the denoiser's output in the mean
    std: Tensor  # [steps], standard deviation of the step, at least STD_FLOOR
    noise_std: Tensor  # [steps], k: the same without the floor, as the sampler adds it

    def __len__(self) -> int:
        return len(self.timesteps)

    def to(self, device: torch.device | str) -> StepCoefficients:
        """The coefficients on another device."""
        values = {name: getattr(self, name).to(device) for name in self.__dataclass_fields__}
        return type(self)(**values)


def along_batch(values: Tensor, latents: Tensor) -> Tensor:
    """Values `[batch]` in the shape that multiplies latents `[batch, …]`."""
    return values.view(-1, *[1] * (latents.ndim - 1))


def mean_per_item(values: Tensor) -> Tensor:
    """Means over all dimensions but the first, `[batch]`."""
    return values.mean(tuple(range(1, values.ndim)))


class SamplerChoice(Protocol):
    """The settings of a sampler run that decide its coefficients."""

    @property
    def steps(self) -> int:
        """Number of steps."""
        ...

    @property
    def eta(self) -> float:
        """Stochasticity of the steps."""
        ...

    @property
    def transition(self) -> str:
        """Kind of the steps, a word of `ddpo.policies.transitions`."""
        ...

    @property
    def grid(self) -> str:
        """Noise levels, a word of `ddpo.policies.transitions`."""
        ...


class Schedule(Protocol):
    """The noise levels of a model, and the steps of its sampler."""

    @property
    def levels(self) -> int:
        """Number of noise levels that denoising losses choose from; 0 has the least noise."""
        ...

    def coefficients_on(self, device: torch.device, steps: int, eta: float) -> StepCoefficients:
        """The coefficients of a sampler run on a device, computed and moved there once.

        Args:
            device: Torch device.
            steps: Number of steps.
            eta: Stochasticity of the steps; 0: none.

        Raises:
            ConfigError: `steps` or `eta` is out of range.
        """
        ...

    def mean(
        self, output: Tensor, x_t: Tensor, step: Tensor, coefficients: StepCoefficients
    ) -> Tensor:
        """Mean of p(x' | x_t, c), float32, of the shape of `x_t`.

        Args:
            output: Output of the denoiser, of the shape of `x_t`.
            x_t: Noisy latents `[batch, …]`.
            step: Index into the coefficients, int64 `[batch]`.
            coefficients: Coefficients of the sampler run.
        """
        ...

    def timestep(self, level: Tensor) -> Tensor:
        """The timesteps that the denoiser is given at noise levels, `[batch]`."""
        ...

    def noised(self, x_0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Clean latents `[batch, …]` with noise of the same shape at levels `[batch]`."""
        ...

    def target(self, x_0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The right output of the denoiser for `noised(x_0, noise, level)`."""
        ...

    def nearest_level(self, signal: float) -> int:
        """The level whose share of signal ᾱ = SNR / (1 + SNR) is closest to `signal`."""
        ...
