"""One stochastic denoising step x_t → x_{t-1} and its density, for sampling and training alike.

All values are float32 on the latents' device, whatever the dtype of the denoiser. Nothing waits for
the host: the coefficients of all steps are computed once and gathered by step index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast, get_args

import torch
from torch import Tensor

from ddpo.errors import ConfigError, one_line
from ddpo.io.fields import Fields, Maybe, Real, Whole
from ddpo.io.json_files import check_fields
from ddpo.policies.schedule import STD_FLOOR, StepCoefficients, along_batch, mean_per_item
from ddpo.policies.transitions import AUTO
from ddpo.text import shortened

__all__ = [
    "DiffusionCoefficients",
    "NoiseSchedule",
    "ddim_mean",
    "denoising_target",
    "gaussian_log_prob",
    "noised",
]

SCHEDULER: Final[Fields] = {
    "num_train_timesteps": Maybe(Whole(1, 100_000)),
    "steps_offset": Maybe(Whole(-100_000, 100_000)),
    "beta_start": Maybe(Real()),
    "beta_end": Maybe(Real()),
}
"""Kinds of a scheduler's settings; a billion timesteps would take hours and all memory."""

Prediction = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["leading", "trailing", "linspace"]


@dataclass(frozen=True, slots=True)
class DiffusionCoefficients(StepCoefficients):
    """The coefficients of DDIM steps, k = η √((1-ᾱ_{t-1})/(1-ᾱ_t) · (1-ᾱ_t/ᾱ_{t-1})).

    The timesteps are int64.
    """

    alpha: Tensor  # float32 [steps], ᾱ_t
    alpha_prev: Tensor  # float32 [steps], ᾱ_{t-1}; the schedule's final value after the last step


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """The cumulative signal levels of a diffusion model, and the output type of its denoiser.

    Source of the step: Song et al., arXiv 2010.02502, equations 12 and 16.
    """

    alphas_cumprod: Tensor  # float64 [train_timesteps]
    final_alpha: float  # ᾱ after the last step: 1, or ᾱ_0 if set_alpha_to_one is False
    prediction: Prediction
    spacing: Spacing
    steps_offset: int
    _cached: dict[tuple[str, int, float], DiffusionCoefficients] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _alphas: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def from_scheduler(cls, config: Any) -> NoiseSchedule:
        """The schedule of a diffusers scheduler config (a mapping).

        Raises:
            ConfigError: The scheduler is for flow matching, has an unknown prediction type or
                spacing, or has impossible signal levels.
        """
        from diffusers import DDIMScheduler

        if "beta_schedule" not in config:
            raise ConfigError(
                f"the scheduler {config.get('_class_name', '')} is not a variance-preserving "
                "diffusion: DDIM steps would be wrong"
            )
        try:
            check_fields(config, SCHEDULER)
            ddim = DDIMScheduler.from_config(config)
        except Exception as error:  # a damaged config can raise anything in diffusers
            reason = shortened(one_line(error), 200)
            raise ConfigError(f"the scheduler's config describes no schedule: {reason}") from error
        prediction = ddim.config["prediction_type"]
        spacing = ddim.config["timestep_spacing"]
        if prediction not in get_args(Prediction) or spacing not in get_args(Spacing):
            raise ConfigError(
                f"the scheduler has prediction_type {prediction!r} and timestep_spacing "
                f"{spacing!r}: ddpo reads {' or '.join(get_args(Prediction))}, "
                f"and {' or '.join(get_args(Spacing))}"
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

    def sampled_by(self, transition: str, grid: str) -> NoiseSchedule:
        """This schedule, whose one sampler is DDIM.

        Raises:
            ConfigError: Another transition, or a grid of flow models, is wanted.
        """
        if transition not in (AUTO, "ddim"):
            raise ConfigError(
                "is a U-Net that denoises by diffusion, not a flow model: "
                f"transition must be ddim, got {transition}"
            )
        if grid != AUTO:
            raise ConfigError(
                f"has the timesteps of its own scheduler, no noise levels of a flow: grid must be "
                f"{AUTO}, got {grid}"
            )
        return self

    def is_of_scheduler(self, config: Mapping[str, Any]) -> bool:
        """True if a diffusers scheduler config describes this schedule; raises as above."""
        other = NoiseSchedule.from_scheduler(config)
        return (
            other.prediction == self.prediction
            and other.alphas_cumprod.shape == self.alphas_cumprod.shape
            and torch.allclose(other.alphas_cumprod, self.alphas_cumprod.cpu())
        )

    def timesteps(self, steps: int) -> list[int]:
        """The timesteps of a sampler run, descending, in the spacing of the scheduler.

        Raises:
            ConfigError: `steps` is less than 1 or exceeds the number of training timesteps.

        Source: arXiv 2305.08891, table 2.
        """
        total = len(self.alphas_cumprod)
        if not 1 <= steps <= total:
            raise ConfigError(f"steps must be in 1 … {total}, got {steps}")
        if self.spacing == "trailing":
            return [round(total - i * total / steps) - 1 for i in range(steps)]
        if self.spacing == "leading":
            stride = total // steps
            times = [min(i * stride + self.steps_offset, total - 1) for i in range(steps)]
            return times[::-1]
        if steps == 1:
            return [0]  # numpy.linspace(0, total - 1, 1), as in diffusers
        return [round(i * (total - 1) / (steps - 1)) for i in reversed(range(steps))]

    @property
    def levels(self) -> int:
        """Number of training timesteps, each of which is a noise level."""
        return len(self.alphas_cumprod)

    def mean(
        self, output: Tensor, x_t: Tensor, step: Tensor, coefficients: StepCoefficients
    ) -> Tensor:
        """As `ddim_mean`, for coefficients of this schedule."""
        if not isinstance(coefficients, DiffusionCoefficients):
            raise TypeError(f"DDIM steps need DiffusionCoefficients, got {coefficients!r}")
        return ddim_mean(output, x_t, step, coefficients, self.prediction)

    def timestep(self, level: Tensor) -> Tensor:
        """The level itself, int64 `[batch]`."""
        return level

    def noised(self, x_0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """As the function `noised`, at timesteps `[batch]`."""
        return noised(x_0, noise, self._alpha(level))

    def target(self, x_0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """As `denoising_target`, at timesteps `[batch]`."""
        return denoising_target(x_0, noise, self._alpha(level), self.prediction)

    def nearest_level(self, signal: float) -> int:
        """The timestep whose ᾱ is closest to `signal`."""
        return int((self.alphas_cumprod - signal).abs().argmin())

    def _alpha(self, level: Tensor) -> Tensor:
        """ᾱ at timesteps, float32 `[batch]`, from a copy that stays on their device."""
        device = str(level.device)
        if device not in self._alphas:
            self._alphas[device] = self.alphas_cumprod.float().to(level.device)
        return self._alphas[device][level]

    def coefficients_on(
        self, device: torch.device, steps: int, eta: float
    ) -> DiffusionCoefficients:
        """The coefficients on a device, computed and moved there once; raises as `coefficients`."""
        key = (str(device), steps, eta)
        if key not in self._cached:
            moved = self.coefficients(steps, eta).to(device)
            self._cached[key] = cast(DiffusionCoefficients, moved)
        return self._cached[key]

    def coefficients(self, steps: int, eta: float) -> DiffusionCoefficients:
        """The coefficients of a sampler run.

        Args:
            steps: Number of steps.
            eta: Stochasticity, from 0 (deterministic DDIM) to 1 (as noisy as DDPM).

        Raises:
            ConfigError: `eta` is outside [0, 1], or `steps` is out of range.
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
        a, b = _affine(alpha, alpha_prev, std, self.prediction)
        return DiffusionCoefficients(
            timesteps=torch.tensor(times),
            a=a.float(),
            b=b.float(),
            std=std.clamp_min(STD_FLOOR).float(),
            noise_std=std.float(),
            alpha=alpha.float(),
            alpha_prev=alpha_prev.float(),
        )


def _affine(
    alpha: Tensor, alpha_prev: Tensor, std: Tensor, prediction: Prediction
) -> tuple[Tensor, Tensor]:
    """The factors a and b of a DDIM step, float64 `[steps]`; arguments as in `ddim_mean`."""
    signal = alpha.sqrt()
    noise = (1 - alpha).sqrt()
    to_signal = alpha_prev.sqrt()
    to_noise = (1 - alpha_prev - std**2).clamp_min(0).sqrt()
    if prediction == "epsilon":
        return to_signal / signal, to_noise - to_signal * noise / signal
    if prediction == "v_prediction":
        return to_signal * signal + to_noise * noise, to_noise * signal - to_signal * noise
    return to_noise / noise, to_signal - to_noise * signal / noise


def _check_levels(alphas_cumprod: Tensor, total: int, prediction: str) -> None:
    """Raises if no image can be sampled with the signal levels.

    Args:
        alphas_cumprod: ᾱ, `[train_timesteps]`.
        total: Number of training timesteps stated in the config.
        prediction: Output type of the denoiser.

    Raises:
        ConfigError: The number of levels is wrong, levels increase or lie outside [0, 1], or the
            prediction is "epsilon" although ᾱ reaches 0.
    """
    if len(alphas_cumprod) != total:
        raise ConfigError(
            f"the scheduler has {len(alphas_cumprod)} trained_betas and "
            f"num_train_timesteps = {total}: they must be equal"
        )
    falling = bool((alphas_cumprod[1:] <= alphas_cumprod[:-1]).all())
    if not (falling and float(alphas_cumprod[-1]) >= 0 and float(alphas_cumprod[0]) < 1):
        raise ConfigError(
            "the scheduler's betas must be in (0, 1]: the signal would not fall from 1 towards 0"
        )
    if prediction == "epsilon" and float(alphas_cumprod[-1]) == 0:
        raise ConfigError(
            "the scheduler has prediction_type = 'epsilon' and no signal at the noisiest level "
            "(rescale_betas_zero_snr): the image would be divided by zero; such models predict "
            "v_prediction"
        )


def ddim_mean(
    output: Tensor,
    x_t: Tensor,
    step: Tensor,
    coefficients: DiffusionCoefficients,
    prediction: Prediction,
) -> Tensor:
    """Mean of p(x_{t-1} | x_t, c) = N(mean, std²), float32, of the shape of `x_t`.

    mean = √ᾱ_{t-1} x̂_0 + √(1 - ᾱ_{t-1} - σ²) ε̂, with x̂_0 and ε̂ from the denoiser's output.

    Args:
        output: Prediction of the denoiser, `[batch, …]`.
        x_t: Noisy latents of the same shape.
        step: Index into the coefficients, int64 `[batch]`.
        coefficients: Coefficients of the sampler run.
        prediction: "epsilon", "v_prediction" (v = √ᾱ ε - √(1-ᾱ) x_0) or "sample".
    """
    output = output.float()
    x_t = x_t.float()
    alpha, alpha_prev, std = (
        along_batch(c[step], x_t)
        for c in (coefficients.alpha, coefficients.alpha_prev, coefficients.noise_std)
    )
    signal = alpha.sqrt()
    noise = (1 - alpha).sqrt()
    if prediction == "epsilon":
        epsilon = output
        x_0 = (x_t - noise * output) / signal
    elif prediction == "v_prediction":
        epsilon = signal * output + noise * x_t
        x_0 = signal * x_t - noise * output
    else:
        epsilon = (x_t - signal * output) / noise
        x_0 = output
    return alpha_prev.sqrt() * x_0 + (1 - alpha_prev - std**2).clamp_min(0).sqrt() * epsilon


def gaussian_log_prob(x_prev: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density of N(mean, std²) at `x_prev`, averaged over all dimensions but the first.

    The clip range of the reference implementation, 1e-4, is tuned to the average, not the sum
    (kvablack/ddpo-pytorch).

    Args:
        x_prev: Sampled latents as stored, `[batch, …]`.
        mean: Mean of the step, of the same shape.
        std: Standard deviation of the step, `[batch]`.

    Returns:
        float32 `[batch]`.
    """
    deviation = along_batch(std, x_prev)
    squared = ((x_prev.detach().float() - mean) / deviation) ** 2
    return -0.5 * mean_per_item(squared) - std.log() - 0.5 * math.log(2 * math.pi)


def noised(x_0: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """Noised latents x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε, float32, of the shape of `x_0`.

    Args:
        x_0: Clean latents.
        noise: ε, of the same shape.
        alpha: ᾱ_t, `[batch]`.
    """
    level = along_batch(alpha, x_0)
    return level.sqrt() * x_0 + (1 - level).sqrt() * noise


def denoising_target(x_0: Tensor, noise: Tensor, alpha: Tensor, prediction: Prediction) -> Tensor:
    """The correct output for `noised(x_0, noise, alpha)`: ε, v = √ᾱ ε - √(1-ᾱ) x_0, or x_0."""
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return x_0
    level = along_batch(alpha, x_0)
    return level.sqrt() * noise - (1 - level).sqrt() * x_0
