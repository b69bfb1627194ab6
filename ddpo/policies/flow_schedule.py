"""The noise levels of a flow-matching model, and the stochastic steps that sample from it.

A flow model mixes image and noise as x = (1 - σ) x_0 + σ ε and predicts the velocity v = ε - x_0.
Its ODE has no density, so reinforcement learning samples from an SDE with the same marginals. All
of these steps are affine in v; see `ddpo.policies.schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast, get_args

import torch
from torch import Tensor

from ddpo.errors import ConfigError
from ddpo.policies.schedule import STD_FLOOR, StepCoefficients, along_batch
from ddpo.policies.transitions import AUTO, FLOW_TRANSITIONS

__all__ = ["FlowSchedule", "Grid", "Step", "flux_shift", "shifted"]

Grid = Literal["diffusers", "linspace"]
"""Noise levels before the shift: those of diffusers' scheduler, or 1, 1 - 1/n, …, 1/n.

The scheduler of diffusers shifts its levels twice, once when it is made and once for a sampler run
(huggingface/diffusers#13243). Stable Diffusion 3 is deployed so.
"""
Step = Literal["flow_sde", "dance_sde", "cps", "ode"]

TRAIN_LEVELS: Final = 1000

FLUX_SHORT: Final = (256, 0.5)
FLUX_LONG: Final = (4096, 1.15)
"""Tokens of an image, and logarithm of the shift of FLUX.1 at that number."""


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """σ ← s σ / (1 + (s - 1) σ), which spends more steps at the noisy end where s is above 1.

    Source: Esser et al., arXiv 2403.03206, equation 23.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def flux_shift(
    tokens: int,
    short: tuple[float, float] = FLUX_SHORT,
    long: tuple[float, float] = FLUX_LONG,
) -> float:
    """The shift e^μ of FLUX.1 for an image of so many tokens, of 16 × 16 pixels each.

    μ is a straight line, through 0.5 at 256 tokens and 1.15 at 4,096 in the published models.

    Args:
        tokens: Tokens of an image.
        short: Tokens and μ of one point of the line.
        long: Tokens and μ of another.

    Raises:
        ConfigError: The two points give no line, or the shift is too large for a number.
    """
    try:
        slope = (long[1] - short[1]) / (long[0] - short[0])
        return math.exp(short[1] + slope * (tokens - short[0]))
    except (ZeroDivisionError, OverflowError) as error:
        raise ConfigError(
            f"the shift of the noise levels cannot run through μ = {short[1]} at {short[0]} tokens "
            f"and {long[1]} at {long[0]}"
        ) from error


Affine = tuple[Tensor, Tensor, Tensor]
"""a, b and k of each step, float64 `[steps]`."""


def _flow_sde(now: Tensor, after: Tensor, eta: float) -> Affine:
    """Diffusion η √(t / (1 - t)); at t = 1 the denominator takes the next level.

    Source: Liu et al., Flow-GRPO, arXiv 2505.05470, equation 9.
    """
    below_one = torch.where(now == 1, after[0], now)
    return _sde(now, after, eta * (now / (1 - below_one)).sqrt())


def _dance_sde(now: Tensor, after: Tensor, eta: float) -> Affine:
    """Constant diffusion η. Source: Xue et al., DanceGRPO, arXiv 2505.07818."""
    return _sde(now, after, torch.full_like(now, eta))


def _sde(now: Tensor, after: Tensor, diffusion: Tensor) -> Affine:
    """An Euler-Maruyama step of the SDE that keeps the marginals of the flow."""
    change = after - now
    pull = diffusion**2 * change / (2 * now)
    return 1 + pull, change + pull * (1 - now), diffusion * (-change).sqrt()


def _cps(now: Tensor, after: Tensor, eta: float) -> Affine:
    """Coefficients-preserving sampling: the share η of the next level's noise is fresh.

    x' = (1 - t') x̂_0 + √(t'² - k²) ε̂ + k z with k = t' sin(η π / 2).

    Source: Wang & Yu, arXiv 2509.05952.
    """
    fresh = after * math.sin(eta * math.pi / 2)
    kept = (after**2 - fresh**2).clamp_min(0).sqrt()
    return 1 - after + kept, kept * (1 - now) - now * (1 - after), fresh


def _ode(now: Tensor, after: Tensor, eta: float) -> Affine:
    """An Euler step of the flow itself, without noise."""
    return torch.ones_like(now), after - now, torch.zeros_like(now)


STEPS: Final[Mapping[str, Callable[[Tensor, Tensor, float], Affine]]] = {
    "flow_sde": _flow_sde,
    "dance_sde": _dance_sde,
    "cps": _cps,
    "ode": _ode,
}
MOST_ETA: Final[Mapping[str, float]] = {"flow_sde": 2.0, "dance_sde": 2.0, "cps": 1.0, "ode": 2.0}


@dataclass(frozen=True, slots=True)
class FlowSchedule:
    """The noise levels σ of a flow model, and the kind of its steps.

    Args:
        shift: Shift of the levels: 3 for Stable Diffusion 3, `flux_shift(tokens)` for FLUX.1.
        grid: Levels before the shift.
        step: Kind of the steps; "ode" has no noise and no density.
        shifted_once: True for a scheduler that shifts by the size of the image, and so only for a
            sampler run.

    Raises:
        ConfigError: The shift is not positive, or the grid or the step is unknown.
    """

    shift: float
    grid: Grid = "linspace"
    step: Step = "flow_sde"
    shifted_once: bool = False
    _cached: dict[tuple[str, int, float], StepCoefficients] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    _variants: dict[tuple[str, str], FlowSchedule] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shift) and self.shift > 0):
            raise ConfigError(f"the shift of a flow must be above 0, got {self.shift}")
        for name, value, known in (
            ("grid", self.grid, get_args(Grid)),
            ("step", self.step, get_args(Step)),
        ):
            if value not in known:
                raise ConfigError(f"the {name} of a flow must be {' or '.join(known)}: {value!r}")

    @classmethod
    def from_scheduler(cls, config: Mapping[str, Any], grid: Grid) -> FlowSchedule:
        """The schedule of a diffusers scheduler config with a static shift.

        Raises:
            ConfigError: The scheduler is not for a flow, or its shift is impossible.
        """
        name = str(config.get("_class_name"))
        if not name.startswith("FlowMatch"):
            raise ConfigError(f"the scheduler {name} is not for flow matching")
        shift = config.get("shift", 1.0)
        if isinstance(shift, bool) or not isinstance(shift, (int, float)):
            raise ConfigError(f"the scheduler's shift must be a number, got {shift!r}")
        return cls(float(shift), grid)

    def sampled_by(self, transition: str, grid: str) -> FlowSchedule:
        """The schedule with another transition or grid; "auto" for those of this one.

        Raises:
            ConfigError: The transition is not one of a flow.
        """
        step = self.step if transition == AUTO else transition
        if step not in FLOW_TRANSITIONS:
            raise ConfigError(
                f"is a flow model: transition must be {', '.join(FLOW_TRANSITIONS[:-1])} or "
                f"{FLOW_TRANSITIONS[-1]}, got {step}"
            )
        key = (step, self.grid if grid == AUTO else grid)
        if key not in self._variants:
            self._variants[key] = replace(self, step=cast(Step, step), grid=cast(Grid, key[1]))
        return self._variants[key]

    def is_of_scheduler(self, config: Mapping[str, Any]) -> bool:
        """True if a diffusers scheduler config has this shift; raises as above."""
        if config.get("use_dynamic_shifting"):
            return True  # its shift depends on the image
        return FlowSchedule.from_scheduler(config, self.grid).shift == self.shift

    def shift_of(self, steps: int) -> float:
        """The shift of a sampler run of so many steps; here one shift for all."""
        return self.shift

    @property
    def levels(self) -> int:
        """Number of noise levels that denoising losses choose from, evenly in time."""
        return TRAIN_LEVELS

    def sigmas(self, steps: int) -> Tensor:
        """The noise levels of a sampler run, float64 `[steps + 1]`, from 1 to 0.

        Raises:
            ConfigError: `steps` is less than 1 or exceeds 1,000.
        """
        if not 1 <= steps <= TRAIN_LEVELS:
            raise ConfigError(f"steps must be in 1 … {TRAIN_LEVELS}, got {steps}")
        last = 1 / steps
        shift = self.shift_of(steps)
        if self.grid == "diffusers":
            least = torch.tensor(1 / TRAIN_LEVELS, dtype=torch.float64)
            last = float(least if self.shifted_once else shifted(least, shift))
        sigma = shifted(torch.linspace(1, last, steps, dtype=torch.float64), shift)
        return torch.cat([sigma, torch.zeros(1, dtype=torch.float64)])

    def coefficients_on(self, device: torch.device, steps: int, eta: float) -> StepCoefficients:
        """The coefficients on a device, computed and moved there once; raises as `coefficients`."""
        key = (str(device), steps, eta)
        if key not in self._cached:
            self._cached[key] = self.coefficients(steps, eta).to(device)
        return self._cached[key]

    def coefficients(self, steps: int, eta: float) -> StepCoefficients:
        """The coefficients of a sampler run; the timesteps are its noise levels σ, float32.

        Args:
            steps: Number of steps.
            eta: Noise level of the steps: a of Flow-SDE and CPS, η of Dance-SDE.

        Raises:
            ConfigError: `eta` is outside the range of the step, or `steps` is out of range.
        """
        most = MOST_ETA[self.step]
        if not 0 <= eta <= most:
            raise ConfigError(f"eta must be in [0, {most:g}] for {self.step}, got {eta}")
        sigma = self.sigmas(steps)
        now = sigma[:-1]
        a, b, k = STEPS[self.step](now, sigma[1:], eta)
        return StepCoefficients(
            timesteps=now.float(),
            a=a.float(),
            b=b.float(),
            std=k.clamp_min(STD_FLOOR).float(),
            noise_std=k.float(),
        )

    def mean(
        self, output: Tensor, x_t: Tensor, step: Tensor, coefficients: StepCoefficients
    ) -> Tensor:
        """The mean a · x + b · v, float32, of the shape of `x_t`."""
        a = along_batch(coefficients.a[step], x_t)
        b = along_batch(coefficients.b[step], x_t)
        return a * x_t.float() + b * output.float()

    def timestep(self, level: Tensor) -> Tensor:
        """The noise level σ, float32 `[batch]`."""
        return shifted((level.float() + 1) / TRAIN_LEVELS, self.shift)

    def noised(self, x_0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """(1 - σ) x_0 + σ ε."""
        sigma = along_batch(self.timestep(level), x_0)
        return (1 - sigma) * x_0 + sigma * noise

    def target(self, x_0: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The velocity ε - x_0."""
        return noise - x_0

    def nearest_level(self, signal: float) -> int:
        """The level whose ᾱ = (1 - σ)² / ((1 - σ)² + σ²) is closest to `signal`."""
        sigma = self.timestep(torch.arange(TRAIN_LEVELS)).double()
        share = (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)
        return int((share - signal).abs().argmin())
