"""One stochastic denoising step x_t → x_{t-1} and its density; the same code serves sampling and training.

Everything is float32 on the latents' device, whatever dtype the denoiser runs in, and nothing waits for the host: the coefficients
of all steps are computed once and gathered by step index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch
from torch import Tensor

from ddpo.errors import ConfigError, one_line
from ddpo.text import shortened

__all__ = [
    "NoiseSchedule",
    "StepCoefficients",
    "ddim_mean",
    "denoising_target",
    "gaussian_log_prob",
    "noised",
]

STD_FLOOR: Final = 1e-6
"""Least standard deviation of a step: with η = 0 the density is a spike, not a division by zero. Source: jannerm/ddpo."""

Prediction = Literal["epsilon", "v_prediction", "sample"]


@dataclass(frozen=True, slots=True)
class StepCoefficients:
    """What the steps of one sampler run need, one entry per step, in sampling order (noise first)."""

    timesteps: Tensor  # int64 [steps], descending
    alpha: Tensor  # float32 [steps], ᾱ_t
    alpha_prev: Tensor  # float32 [steps], ᾱ_{t-1}; the schedule's final value after the last step
    std: Tensor  # float32 [steps], η √((1-ᾱ_{t-1})/(1-ᾱ_t) · (1-ᾱ_t/ᾱ_{t-1})), at least STD_FLOOR
    noise_std: Tensor  # float32 [steps], the same without the floor: what the sampler adds

    def __len__(self) -> int:
        return len(self.timesteps)

    def to(self, device: torch.device | str) -> StepCoefficients:
        """The coefficients on another device."""
        return StepCoefficients(*(getattr(self, name).to(device) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """The cumulative signal levels of a diffusion model and what its denoiser predicts.

    Source of the step: Song et al., arXiv 2010.02502, equation 12 and 16.
    """

    alphas_cumprod: Tensor  # float64 [train_timesteps]
    final_alpha: (
        float  # ᾱ after the last step: 1, or ᾱ_0 where the scheduler has set_alpha_to_one=False
    )
    prediction: Prediction
    spacing: Literal["leading", "trailing", "linspace"]
    steps_offset: int
    _made: dict[tuple[str, int, float], StepCoefficients] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def from_scheduler(cls, config: Any) -> NoiseSchedule:
        """The schedule that a diffusers scheduler config (a mapping) describes.

        Raises:
            ConfigError: a flow-matching scheduler, an unknown prediction type or spacing, or impossible levels.
        """
        from diffusers import DDIMScheduler

        if "beta_schedule" not in config:
            raise ConfigError(
                f"the scheduler {config.get('_class_name', '')} is not a variance-preserving diffusion: DDIM steps would be wrong"
            )
        try:
            ddim = DDIMScheduler.from_config(config)
        except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
            said = shortened(one_line(error), 200)
            raise ConfigError(f"the scheduler's config describes no schedule: {said}") from error
        prediction, spacing = ddim.config["prediction_type"], ddim.config["timestep_spacing"]
        if prediction not in ("epsilon", "v_prediction", "sample") or spacing not in (
            "leading",
            "trailing",
            "linspace",
        ):
            raise ConfigError(
                f"prediction type {prediction!r} with spacing {spacing!r} is not supported"
            )
        levels = ddim.alphas_cumprod.double()
        _check_levels(levels, int(ddim.config["num_train_timesteps"]), prediction)
        return cls(
            levels,
            float(ddim.final_alpha_cumprod),
            prediction,
            spacing,
            int(ddim.config["steps_offset"]),
        )

    def timesteps(self, steps: int) -> list[int]:
        """The timesteps of a run of `steps`, descending, spaced as the scheduler spaces them (arXiv 2305.08891, table 2).

        Raises:
            ConfigError: more steps than training timesteps, or none.
        """
        total = len(self.alphas_cumprod)
        if not 1 <= steps <= total:
            raise ConfigError(f"steps must be in 1 … {total}, got {steps}")
        if self.spacing == "trailing":
            return [round(total - i * total / steps) - 1 for i in range(steps)]
        if self.spacing == "leading":
            return [
                min(i * (total // steps) + self.steps_offset, total - 1)
                for i in reversed(range(steps))
            ]
        if steps == 1:
            return [0]  # numpy.linspace(0, total - 1, 1), as in diffusers
        return [round(i * (total - 1) / (steps - 1)) for i in reversed(range(steps))]

    def coefficients_on(self, device: torch.device, steps: int, eta: float) -> StepCoefficients:
        """The coefficients on a device, made and moved there once; raises as `coefficients`."""
        key = (str(device), steps, eta)
        if key not in self._made:
            self._made[key] = self.coefficients(steps, eta).to(device)
        return self._made[key]

    def coefficients(self, steps: int, eta: float) -> StepCoefficients:
        """The coefficients of a run of `steps` with stochasticity `eta` (1: as noisy as DDPM; 0: deterministic DDIM).

        Raises:
            ConfigError: `eta` is outside [0, 1], or `steps` does not fit.
        """
        if not 0 <= eta <= 1:
            raise ConfigError(f"eta must be in [0, 1], got {eta}")
        times = self.timesteps(steps)
        stride = len(self.alphas_cumprod) // steps
        alpha = self.alphas_cumprod[times]
        before = [t - stride for t in times]
        final = torch.tensor(self.final_alpha, dtype=torch.float64)
        alpha_prev = torch.stack([self.alphas_cumprod[t] if t >= 0 else final for t in before])
        variance = (1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)
        std = eta * variance.clamp_min(0).sqrt()
        return StepCoefficients(
            timesteps=torch.tensor(times),
            alpha=alpha.float(),
            alpha_prev=alpha_prev.float(),
            std=std.clamp_min(STD_FLOOR).float(),
            noise_std=std.float(),
        )


def _check_levels(alphas_cumprod: Tensor, total: int, prediction: str) -> None:
    """Refuses signal levels with which no image can be sampled.

    Args:
        alphas_cumprod: ᾱ, `[train_timesteps]`.
        total: the number of training timesteps that the config states.
        prediction: the denoiser's output.

    Raises:
        ConfigError: too few or too many levels, levels outside [0, 1] or increasing, or "epsilon" where ᾱ is 0.
    """
    if len(alphas_cumprod) != total:
        raise ConfigError(
            f"the scheduler has {len(alphas_cumprod)} trained_betas and num_train_timesteps = {total}: they must be equal"
        )
    falling = bool((alphas_cumprod[1:] <= alphas_cumprod[:-1]).all())
    if not (falling and float(alphas_cumprod[-1]) >= 0 and float(alphas_cumprod[0]) < 1):
        raise ConfigError(
            "the scheduler's betas must be in (0, 1]: the signal would not fall from 1 towards 0"
        )
    if prediction == "epsilon" and float(alphas_cumprod[-1]) == 0:
        raise ConfigError(
            "the scheduler has prediction_type = 'epsilon' and no signal at the noisiest level (rescale_betas_zero_snr): "
            "the image would be divided by zero; such models predict v_prediction"
        )


def ddim_mean(
    output: Tensor,
    x_t: Tensor,
    step: Tensor,
    coefficients: StepCoefficients,
    prediction: Prediction,
) -> Tensor:
    """Mean of p(x_{t-1} | x_t, c) = N(mean, std²), float32 `[batch, channel, height, width]`.

    mean = √ᾱ_{t-1} x̂_0 + √(1 - ᾱ_{t-1} - σ²) ε̂, with x̂_0 and ε̂ from the denoiser's output.

    Args:
        output: what the denoiser predicts, `[batch, channel, height, width]`.
        x_t: the noisy latents, same shape.
        step: index into the coefficients, int64 `[batch]`.
        coefficients: those of the sampler run.
        prediction: "epsilon", "v_prediction" (v = √ᾱ ε - √(1-ᾱ) x_0) or "sample".
    """
    output, x_t = output.float(), x_t.float()
    alpha, alpha_prev, std = (
        c[step].view(-1, 1, 1, 1)
        for c in (coefficients.alpha, coefficients.alpha_prev, coefficients.noise_std)
    )
    signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
    if prediction == "epsilon":
        x_0, epsilon = (x_t - noise * output) / signal, output
    elif prediction == "v_prediction":
        x_0, epsilon = signal * x_t - noise * output, signal * output + noise * x_t
    else:
        x_0, epsilon = output, (x_t - signal * output) / noise
    return alpha_prev.sqrt() * x_0 + (1 - alpha_prev - std**2).clamp_min(0).sqrt() * epsilon


def gaussian_log_prob(x_prev: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density of N(mean, std²) at `x_prev`, *averaged* over channel, height and width: float32 `[batch]`.

    The average, not the sum, is what the reference implementation's clip range of 1e-4 is tuned to (kvablack/ddpo-pytorch).

    Args:
        x_prev: the sampled latents as they are stored, `[batch, channel, height, width]`.
        mean: same shape.
        std: `[batch]`.
    """
    deviation = std.view(-1, 1, 1, 1)
    squared = ((x_prev.detach().float() - mean) / deviation) ** 2
    return -0.5 * squared.mean((1, 2, 3)) - std.log() - 0.5 * math.log(2 * math.pi)


def noised(x_0: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε, float32 `[batch, channel, height, width]`; `alpha` is ᾱ_t, `[batch]`."""
    level = alpha.view(-1, 1, 1, 1)
    return level.sqrt() * x_0 + (1 - level).sqrt() * noise


def denoising_target(x_0: Tensor, noise: Tensor, alpha: Tensor, prediction: Prediction) -> Tensor:
    """What the denoiser should predict for `noised(x_0, noise, alpha)`: ε, v = √ᾱ ε - √(1-ᾱ) x_0, or x_0; same shape."""
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return x_0
    level = alpha.view(-1, 1, 1, 1)
    return level.sqrt() * noise - (1 - level).sqrt() * x_0
